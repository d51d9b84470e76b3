"""Which memories a modern Hopfield network forgets, and what replaying them gives back.

A cluster of patterns and one outlier are stored, then all of them are turned by a random rotation.
Energies are measured, not taken from formulas, over hundreds of rotations: a single one often
contradicts the mean.

References:
    Takeda, Oizumi, Karakida, "Continual Learning in Modern Hopfield Networks with an Application
    to Diffusion Models", arXiv:2605.27975. Number of patterns, dimensions, overlap and beta are
    those that a summary of it gives; the strengths beyond 0.05 are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import PALETTE, add_legend, log_axis, make_panels
from mbrl_flat.data.hopfield_energy import attention, energy, retrieve
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.experiments.sweep_plots import draw_means
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, Value, sign_claim
from mbrl_flat.studies.hopfield.forgetting import (
    cluster_with_outlier,
    forgetting,
    random_rotations,
    replay_gain,
)

GAINS = {
    "gain_outlier_self": "outlier, replayed itself",
    "gain_cluster_self": "cluster pattern, replayed itself",
    "gain_within": "cluster pattern, another one replayed",
    "gain_outlier_to_cluster": "cluster pattern, outlier replayed",
    "gain_cluster_to_outlier": "outlier, cluster pattern replayed",
}
"""Corrected gains in the order that is predicted, the largest first."""


@dataclass(frozen=True, kw_only=True)
class Hopfield(CheckedSettings):
    """The study; its settings.

    Attributes:
        num_cluster: Patterns of the cluster.
        size: Dimensions.
        overlap: Inner product of any two of the cluster.
        beta: Inverse temperature, above 0; larger values make the nearest pattern count alone.
        strengths: Strengths of the rotation.
        rotations: Rotations of each strength; the seed of a row is its number.
    """

    title: ClassVar[str] = "Forgetting in modern Hopfield networks"
    paper: ClassVar[str] = (
        'Takeda, Oizumi, Karakida, "Continual Learning in Modern Hopfield Networks with an '
        'Application to Diffusion Models", arXiv:2605.27975'
    )

    num_cluster: int = setting(12, "[2, inf)")
    size: int = setting(50, "[1, inf)")
    overlap: float = setting(0.35, "[0, 1)")
    beta: float = setting(8.0, "(0, inf)")
    strengths: Sequence[float] = setting((0.02, 0.05, 0.1, 0.2), "[0, inf)")
    rotations: int = setting(400, "[0, inf)")

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Every rotation at every strength."""
        del rows
        return [
            Trial(strength=strength, seed=seed)
            for strength in self.strengths
            for seed in range(self.rotations)
        ]

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Turn the memories once, and replay each of them once."""
        patterns = cluster_with_outlier(
            num_cluster=self.num_cluster, size=self.size, overlap=self.overlap
        )
        generator = torch.Generator().manual_seed(cell["seed"])
        rotation = random_rotations(1, self.size, strength=cell["strength"], generator=generator)
        found = forgetting(patterns, rotation, beta=self.beta)
        rise, gain, n = found.rise[0], found.corrected[0], self.num_cluster
        own = gain.diagonal()
        within = (gain[:n, :n].sum() - own[:n].sum()) / (n * (n - 1))
        points = retrieve(patterns, patterns, beta=self.beta)
        share = attention(points, patterns, beta=self.beta).mT
        predicted = replay_gain(share, rise, beta=self.beta)
        high_first = energy(points, patterns, beta=self.beta).argmax() == n
        return {
            "rise_outlier": float(rise[n]),
            "rise_cluster": float(rise[:n].mean()),
            "outlier_has_highest_energy": bool(high_first),
            "gain_outlier_self": float(own[n]),
            "gain_cluster_self": float(own[:n].mean()),
            "gain_within": float(within),
            "gain_outlier_to_cluster": float(gain[n, :n].mean()),
            "gain_cluster_to_outlier": float(gain[:n, n].mean()),
            "identity_error": float((predicted - found.gain[0]).abs().max()),
        }

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """What the rotations say, strength by strength."""
        claims: list[Claim] = []
        for letter, strength in zip("abcdefgh", self.strengths, strict=False):
            ours = rows.where(strength=strength)
            more = ours.minus(ours, "rise_outlier", "rise_cluster")
            true = sum(difference > 0.0 for difference in more) / max(len(more), 1)
            claims.append(
                sign_claim(
                    f"H1{letter}",
                    "The outlier is forgotten more than the cluster",
                    f"rise of the outlier less the cluster's mean, rotation {strength:g}",
                    more,
                    above=0.0,
                    note=f"true of {true:.0%} of single rotations",
                )
            )
            claims += [
                sign_claim(
                    f"H2{letter}{number}",
                    f"Replay gains more for: {GAINS[first]}, than for: {GAINS[second]}",
                    f"difference of corrected gains, rotation {strength:g}",
                    ours.minus(ours, first, second),
                    above=0.0,
                )
                for number, (first, second) in enumerate(pairwise(GAINS), start=1)
            ]
        claims.append(
            sign_claim(
                "H3",
                "The gain of replay is log(1 + p exp(beta rise)) / beta",
                "largest deviation of measured from computed gain, all rotations",
                [max(rows.values("identity_error"))] if len(rows) else [],
                below=1e-12,
                note="the identity is derived here",
            )
        )
        return claims

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Rises and gains against the strength of the rotation."""
        figure, (left, right) = make_panels(2, title=self.title)
        figure.set_figheight(4.4)
        names = {"rise_outlier": "outlier", "rise_cluster": "cluster"}
        for axes, metrics, label in (
            (left, names, "rise of the energy"),
            (right, GAINS, "gain of replay"),
        ):
            for color, (metric, name) in zip(PALETTE, metrics.items(), strict=False):
                values = [rows.where(strength=s).values(metric) for s in self.strengths]
                draw_means(axes, self.strengths, values, color=color, ms=3, label=name)
            log_axis(axes, "x")
            log_axis(axes)
            axes.set(xlabel="strength of the rotation", ylabel=label)
            add_legend(axes)
        return {"forgetting": figure}
