"""What every estimator gives back: figures to print, a table to go on with, and files."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ppvae.data.files import write_csv, write_json


class Answer(ABC):
    """An answer: `print` it, or take its `summary()`, its `to_dataframe()`, or `save` it."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """The answer as a whole: figures and words by name; nan where there is no such figure."""

    @abstractmethod
    def columns(self) -> dict[str, Sequence[Any]]:
        """The answer in full: a table's columns by name, all of one length. Most have a row for each datum."""

    def to_dataframe(self) -> Any:
        """The columns as a pandas DataFrame; needs `pip install 'ppvae[dataframe]'`.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")  # it is optional
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("to_dataframe needs pandas: pip install 'ppvae[dataframe]'") from error
        return pandas.DataFrame(self.columns())

    def save(self, path: str | Path) -> Path:
        """Write the summary to `path` as JSON, and the columns beside it as CSV; replaced whole if they are there.

        Returns:
            Path: of the JSON file.

        Raises:
            ValueError: a name that does not end in `.json`.
        """
        path = Path(path)
        if path.suffix != ".json":
            raise ValueError(f"an answer is saved as .json, with a .csv beside it; got {path}")
        write_csv(path.with_suffix(".csv"), self.columns())
        write_json(path, self.summary())
        return path

    def __str__(self) -> str:
        return "\n".join(f"{name:<24}  {_said(value)}" for name, value in self.summary().items())


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
