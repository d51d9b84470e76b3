"""What an experiment is: settings, the cells they call for, and what is made of the rows."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from matplotlib.figure import Figure

from mbrl_flat.studies.framework.claims import Claim
from mbrl_flat.studies.framework.rows import Trial, TrialRows

Value = float | int | str | bool | None | Sequence[float]
"""What a row can hold: what JSON can, with curves as lists of numbers."""


class Study(Protocol):
    """A frozen dataclass whose fields are the settings of the experiment.

    Attributes:
        title: One line, the heading of its page.
        paper: Whose claims are checked, as authors, title and arXiv number.
    """

    title: ClassVar[str]
    paper: ClassVar[str]

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Everything to be computed, as far as the rows known so far tell.

        It is asked again once all cells that it named are there: a study that chooses a setting
        by its validation score first names the sweep, then the cells at the chosen setting.
        """
        ...

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Compute one cell. Its result follows from the settings and the cell alone.

        Raises:
            DivergedError: If training diverges; the row then says at which step.
        """
        ...

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """What the rows say of each of the paper's claims."""
        ...

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Figures by file name without ending."""
        ...
