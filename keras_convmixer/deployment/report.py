"""What was exported, how it compares with the Keras model, and what a TFLite file then says of itself."""

import dataclasses
import os
from pathlib import Path

from keras_convmixer import files
from keras_convmixer.deployment.comparison import Comparison, Tolerance
from keras_convmixer.parts import architecture
from keras_convmixer.reports import Report

# Agreement on fewer images says next to nothing.
FEW_IMAGES = 20


@dataclasses.dataclass(frozen=True)
class Exported(Report):
    """What was exported and how it compares with the Keras model.

    Attributes:
        path: the file or folder.
        format, quantize: as given to `export`.
        size: in bytes.
        threads: that it was run with; None for a SavedModel, which takes TensorFlow's.
        comparison: what was measured, or None where it was not compared. tolerance: what it kept to.
    """

    path: Path
    format: str
    quantize: str
    size: int
    threads: int | None
    comparison: Comparison | None
    tolerance: Tolerance

    def summary(self) -> dict:
        """All of it; of the path the name alone, since the folder may be moved."""
        return dataclasses.asdict(self) | {"path": self.path.name}

    def lines(self) -> list[str]:
        rows = {"file": self.path, "size": f"{self.size / 1e6:.2f} MB"} | self._compared()
        return [f"{name:<16} {value}" for name, value in rows.items()]

    def _compared(self):
        got, asked = self.comparison, self.tolerance
        if got is None:
            return {"comparison": "not compared"}
        limit = "any" if asked.max_difference is None else f"{asked.max_difference:.0e}"
        few = f": too few to tell, {FEW_IMAGES} or more would do" if got.images < FEW_IMAGES else ""
        of_threads = f", {self.threads} threads" if self.threads else ""
        return {
            "compared on": f"{got.images} images{few}",
            "top-1 agreement": f"{got.agreement:.2%} of them with Keras's class (at least {asked.agreement:.0%})",
            "max difference": f"{got.max_difference:.1e} of a probability from Keras's (allowed: {limit})",
            "latency": f"{got.latency_ms:.2f} ms an image{of_threads} (Keras: {got.keras_latency_ms:.2f} ms)",
        }

    def description(self, bundle) -> str:
        """For a stranger: what the model is, what it takes, and how it compares with the Keras model."""
        sizes, got = architecture(bundle.model), self.comparison
        height, width = bundle.preprocessing.input_size
        compared = "It was not compared with the Keras model it was made from."
        if got is not None:
            compared = (
                f"On {got.images} images its first class is that of the Keras model it was made from on "
                f"{got.agreement:.2%}, and a probability differs by {got.max_difference:.1e} at most."
            )
        numbers = "float32" if self.quantize == "none" else self.quantize
        return (
            f"A ConvMixer in {numbers} that tells {len(bundle.classes)} classes apart: {sizes['depth']} blocks of "
            f"{sizes['dim']} channels, kernels of {sizes['kernel_size']}, patches of {sizes['patch_size']}. "
            f"It takes RGB images {width} wide and {height} high, 0 to 255, and normalises them itself. {compared} "
            f"Exported by keras_convmixer."
        )

    def save(self, folder: str | os.PathLike) -> None:
        """Writes it as JSON into a folder, named after the exported file."""
        files.write_text(Path(folder) / f"{self.path.name}.json", self.as_json() + "\n")
