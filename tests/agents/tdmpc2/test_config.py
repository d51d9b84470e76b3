"""Hyperparameters that make no sense are refused by name."""

import pytest

from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.errors import UserError


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"discount_denom": 0.0}, "discount_denom must be above 0, got 0.0"),
        ({"policy_lr": -1.0}, "policy_lr must be above 0"),
        ({"policy_lr": float("nan")}, "policy_lr must be above 0, got nan"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"enc_lr_scale": -1.0}, "enc_lr_scale must be at least 0"),
        ({"target_rate": 5.0}, r"target_rate must lie in \[0, 1\]"),
        ({"temporal_decay": -1.0}, "temporal_decay must lie"),
        ({"log_std_min": 3.0}, "log_std_min must be at most log_std_max=2.0, got 3.0"),
        ({"discount_min": 0.999}, "discount_min must be at most discount_max=0.995"),
        ({"discount_max": 1.5}, "discount_max must lie"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_bound(setting, sentence):
    with pytest.raises(UserError, match=sentence):
        TDMPC2Config(**setting)
