"""Makes docs/python_api.ipynb and runs it, so that it holds its pictures: python docs/make_notebook.py"""

import os
import tempfile
from pathlib import Path

import nbclient
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NOTEBOOK = Path(__file__).with_name("python_api.ipynb")

CELLS = [
    """# Synthetic tumors from Python

A phantom of the abdomen gets liver tumors of every size: arrays in, arrays out, no files and no training. With a CT of
your own, `hu`, `labels` and `spacing_mm` come from your reader instead; [python_api.md](python_api.md) has the
functions.""",
    """import numpy as np
from matplotlib import pyplot as plt

from nnunet_difftumor import synthesize_arrays
from nnunet_difftumor.dataset_conversion.phantom import LABELS, phantom_case

spacing_mm = (2.0, 1.5, 1.5)
hu, labels = phantom_case([0], spacing_mm=spacing_mm)
print(f"{hu.shape} voxels of {spacing_mm} mm, (z, y, x); labels: {LABELS}")""",
    """## Tumors of four sizes

`size` is a band of equivalent diameters; place, shape, contrast and texture are drawn by the preset, all from the
`seed`.""",
    """scans = {}
for seed, size in enumerate(("tiny", "small", "medium", "large")):
    scans[size] = synthesize_arrays(
        hu, labels, spacing_mm=spacing_mm, organ="liver", organ_label=LABELS["liver"],
        tumor_label=LABELS["liver_tumor"], size=size, count=1, seed=seed,
    )

figure, rows = plt.subplots(2, 4, figsize=(13, 6))
for (size, made), before, after in zip(scans.items(), *rows):
    z, y, x = np.rint(np.argwhere(made.mask).mean(0)).astype(int)
    part = np.s_[z, max(y - 40, 0) : y + 40, max(x - 40, 0) : x + 40]
    diameter = (6 * made.mask.sum() * np.prod(spacing_mm) / np.pi) ** (1 / 3)
    before.set_title(f"{size}: before")
    after.set_title(f"{diameter:.0f} mm, {made.specs[0].contrast_hu:+.0f} HU")
    for axis, image in ((before, hu), (after, made.hu)):
        axis.imshow(image[part], cmap="gray", vmin=-175, vmax=250)
        axis.axis("off")
figure.tight_layout()""",
    """## What was drawn

Everything random about a tumor is in its spec, in mm and HU. The same spec in the same scan gives the same voxels.""",
    """{key: value for key, value in scans["medium"].specs[0].to_dict().items() if value}""",
    """## The mask is exact, and nothing else has changed""",
    """made = scans["medium"]
changed = made.hu != hu
assert np.array_equal(made.mask, made.labels == LABELS["liver_tumor"])
print(f"{made.mask.sum()} voxels are tumor, {changed.sum()} of {hu.size} have other HU")

z = int(made.mask.sum((1, 2)).argmax())
figure, axes = plt.subplots(1, 3, figsize=(13, 4))
for axis, image, title in zip(axes, (made.hu[z], made.mask[z], changed[z]), ("with tumor", "mask", "changed voxels")):
    axis.imshow(image, cmap="gray", vmin=-175 if image.dtype != bool else 0, vmax=250 if image.dtype != bool else 1)
    axis.set_title(title)
    axis.axis("off")
figure.tight_layout()""",
]


def main() -> None:
    """Texts that begin with a heading are for people, the others are code."""
    cells = [new_markdown_cell(text) if text.startswith("#") else new_code_cell(text) for text in CELLS]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # not a random one, which would change with every run
    notebook = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("execution", None)
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, NOTEBOOK)
    print(NOTEBOOK)


if __name__ == "__main__":
    main()
