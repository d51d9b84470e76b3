"""Trainers of others resume from their checkpoints exactly, with the optimizers of this package."""

import re
from pathlib import Path

import accelerate
import lightning
import pytest
import torch
import transformers
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import mbrl_flat
from mbrl_flat.optim import make_optimizer

GUIDES = Path(mbrl_flat.__file__).parents[1] / "docs" / "guides"
METHODS = {
    "sam": {"base": "adamw", "rho": 0.05},
    "msam": {"base": "adamw", "rho": 0.1},
    "ivon": {"ess": 100.0},
}
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # those of the trainers are not ours
    pytest.mark.parametrize("method", METHODS),
]


def optimizer_of(method, model):
    return make_optimizer(method, model, lr=1e-2, **METHODS[method])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 1))


def batches():
    inputs = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))
    return torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)


def assert_equal(ours, theirs):
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (GUIDES / page).read_text(), re.M | re.S)


def test_hugging_face(method, tmp_path):
    page = {"__name__": "page"}
    for block in blocks("huggingface.md")[:2]:
        exec(compile(block, "huggingface.md", "exec"), page)

    def train(folder, checkpoint=None):
        model = page["tiny_bert"]()
        settings = transformers.TrainingArguments(
            output_dir=tmp_path / folder,
            num_train_epochs=2,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_grad_norm=0.0,
            save_strategy="steps",
            save_steps=1,
            learning_rate=1e-2,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        )
        trainer = page["ClosureTrainer"](
            model=model,
            args=settings,
            train_dataset=page["dataset"],
            optimizers=(optimizer_of(method, model), None),
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        assert trainer.state.global_step == 8
        return model.state_dict()

    whole = train("whole")

    assert_equal(train("resumed", str(tmp_path / "whole" / "checkpoint-3")), whole)


class Regression(lightning.LightningModule):
    def __init__(self, method):
        super().__init__()
        self.method, self.network = method, network()

    def training_step(self, batch, index):
        return nn.functional.mse_loss(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return optimizer_of(self.method, self.network)


def test_lightning(method, tmp_path):
    random_state = {"lightning": lightning, "torch": torch}
    exec(compile(blocks("lightning.md")[-1], "lightning.md", "exec"), random_state)

    def fit(folder, epochs, checkpoint=None):
        module = Regression(method)
        kept = ModelCheckpoint(tmp_path / folder, filename="{epoch}", save_top_k=-1)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            callbacks=[kept, random_state["RandomState"]()],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, batches(), ckpt_path=checkpoint)
        return module.state_dict()

    whole = fit("whole", 3)
    torch.manual_seed(5)

    assert_equal(fit("resumed", 3, tmp_path / "whole" / "epoch=0.ckpt"), whole)


def test_accelerate(method, tmp_path):
    def train(resumed):
        accelerate.state.AcceleratorState._reset_state()
        accelerator = accelerate.Accelerator(cpu=True)
        model = network()
        optimizer = optimizer_of(method, model)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
        model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
        inputs = torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(0))
        if resumed:
            torch.manual_seed(5)
            accelerator.load_state(tmp_path / "state")
        for number, x in enumerate(inputs[3 if resumed else 0 :]):
            if number == 3:
                accelerator.save_state(tmp_path / "state")

            def closure(x=x):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
                accelerator.backward(loss)
                return loss

            optimizer.step(closure)
            scheduler.step()
        return accelerator.unwrap_model(model).state_dict()

    whole = train(resumed=False)

    assert_equal(train(resumed=True), whole)
