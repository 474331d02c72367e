"""Settings of a training: a preset, over it a YAML file, over that what is given by name; each key is checked.

Presets are `paper` (Chen et al., CVPR 2024; where it says nothing, the public code's values), `code` (what the public
code does) and `tiny` (a small network for CPUs).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.json_checks import Checker, check_keys, is_integer, is_number

PRESETS = ("paper", "code", "tiny")
# What a resumed training may change: none of it changes what a step computes.
RESUMABLE_KEYS = frozenset({"steps", "workers", "log_every", "checkpoint_every"})


def _field(default: Any, good: Callable[[Any], bool], allowed: str) -> Any:
    return dataclasses.field(default=default, metadata={"good": good, "allowed": allowed})


def _count(default: int, least: int = 1) -> Any:
    return _field(default, lambda v: is_integer(v) and v >= least, f"a whole number of at least {least}")


def _number(default: float, least: float = 0.0, most: float = float("inf")) -> Any:
    bounds = f"of at least {least:g}" if most == float("inf") else f"from {least:g} to {most:g}"
    return _field(default, lambda v: is_number(v) and least <= v <= most, f"a number {bounds}")


def _choice(default: str, *names: str) -> Any:
    return _field(default, lambda v: v in names, f"one of {', '.join(names)}")


def _counts(default: tuple[int, ...], length: int | None = None, *, least: int = 1) -> Any:
    what = f"{f'{length} ' if length else ''}whole numbers of at least {least}"

    def good(value: Any) -> bool:
        fits = isinstance(value, tuple) and (len(value) == length if length else len(value) > 0)
        return fits and all(is_integer(n) and n >= least for n in value)

    return _field(default, good, what)


def _names() -> Any:
    return _field((), lambda v: isinstance(v, tuple) and all(isinstance(n, str) for n in v), "a list of case names")


@dataclass(frozen=True)
class TrainingSettings:
    """What both trainings have. A step is one batch: in the autoencoder's, an update of each of its two optimizers.

    Attributes:
        seed: of the initial weights and of every random number; crop k of a run depends on it and k only.
        steps: after which the training is done.
        batch_size: crops per process that are in memory together.
        patch_size: voxels (z, x, y) of 1 mm.
        learning_rate, betas: of Adam.
        gradient_clip: largest norm of the gradient; 0 for none.
        precision: "32" or "bf16" (autocast).
        workers: processes that read crops, per training process; 0: the training process itself.
        checkpoint_every: steps between checkpoints; an interruption loses at most these.
        validate_every: steps between validations, with pictures.
        validation_crops: fixed crops that a validation takes.
        log_every: steps between entries of the loss curve.
        training_cases: names; none: all that do not validate.
        validation_cases: names; none: see `crops.split`.
    """

    seed: int = _count(0, 0)
    steps: int = _count(40_000)
    batch_size: int = _count(2)
    patch_size: tuple[int, ...] = _counts((96, 96, 96), 3, least=8)
    learning_rate: float = _number(1e-4, 1e-9, 1.0)
    betas: tuple[float, ...] = _field(
        (0.9, 0.999),
        lambda v: isinstance(v, tuple) and len(v) == 2 and all(is_number(b) and 0 <= b < 1 for b in v),
        "two numbers from 0 to below 1",
    )
    gradient_clip: float = _number(1.0)
    precision: str = _choice("bf16", "32", "bf16")
    workers: int = _count(4, 0)
    checkpoint_every: int = _count(500)
    validate_every: int = _count(1000)
    validation_crops: int = _count(16)
    log_every: int = _count(20)
    training_cases: tuple[str, ...] = _names()
    validation_cases: tuple[str, ...] = _names()


@dataclass(frozen=True)
class AutoencoderTrainingSettings(TrainingSettings):
    """Training of the autoencoder.

    Attributes:
        hidden_channels, latent_channels, codes, downsampling, norm_groups: of `AutoencoderConfig`.
        l1_weight: of the mean absolute error.
        commitment_weight: of the squared distance between latent and code.
        perceptual_weight: of the distance of features of one slice along each axis; 0 for none.
        perceptual_file: VGG16 weights; empty: random features (`perceptual.py`).
        adversarial_weight: of the generator's loss.
        feature_weight: of the matching of the discriminators' features.
        adversarial_loss: "hinge" or "log".
        discriminator_start: step at which the discriminators and both losses begin; from `steps` on: never.
        discriminator_channels: of their first layer.
    """

    hidden_channels: int = _count(16)
    latent_channels: int = _count(8)
    codes: int = _count(16_384, 2)
    downsampling: tuple[int, ...] = _counts((4, 4, 4), 3)
    norm_groups: int = _count(32)
    l1_weight: float = _number(4.0)
    commitment_weight: float = _number(0.25)
    perceptual_weight: float = _number(4.0)
    perceptual_file: str = _field("", lambda v: isinstance(v, str), "a .pth or .safetensors file, or nothing")
    adversarial_weight: float = _number(1.0)
    feature_weight: float = _number(4.0)
    adversarial_loss: str = _choice("hinge", "hinge", "log")
    discriminator_start: int = _count(5_000, 0)
    discriminator_channels: int = _count(64)


@dataclass(frozen=True)
class DiffusionTrainingSettings(TrainingSettings):
    """Training of a diffusion model.

    Attributes:
        channels, multipliers, heads, head_dim, norm_groups: of `UNetConfig`.
        accumulation: batches whose gradients make one step.
        loss: "l1" or "l2", of the predicted noise.
        diffusion_steps: T of the schedule; 0: 4 for early, 200 for late tumors.
        jitter_mm: how far the middle of a crop may lie from the lesion's, along each axis.
        ema_decay: of the moving average of the weights, which is what is kept.
        ema_start: step up to which the average is a copy.
        ema_every: steps between its updates.
    """

    channels: int = _count(24)
    multipliers: tuple[int, ...] = _counts((1, 2, 4, 8))
    heads: int = _count(8)
    head_dim: int = _count(32)
    norm_groups: int = _count(8)
    accumulation: int = _count(1)
    loss: str = _choice("l1", "l1", "l2")
    diffusion_steps: int = _count(0, 0)
    jitter_mm: float = _number(8.0)
    ema_decay: float = _number(0.995, 0.0, 1.0)
    ema_start: int = _count(2_000, 0)
    ema_every: int = _count(10)


# The public code stops after 80 000 and starts the discriminators after 10 000 updates of optimizers, of which it makes
# two per batch; its decay of the learning rate would begin after 40 000 batches, that is at the end.
_AUTOENCODER = {
    "paper": {"steps": 200_000, "batch_size": 4, "learning_rate": 3e-4, "adversarial_loss": "log"},
    "code": {"steps": 40_000, "batch_size": 2, "learning_rate": 1.875e-5, "betas": (0.5, 0.9)},
    "tiny": {
        "steps": 2_000,
        "batch_size": 2,
        "patch_size": (32, 32, 32),
        "learning_rate": 3e-4,
        "precision": "32",
        "workers": 0,
        "checkpoint_every": 100,
        "validate_every": 200,
        # Not fewer channels: on a CPU, torch's convolutions of 16 channels take as long as those of 32.
        "codes": 512,
        "discriminator_start": 1_000,
        "discriminator_channels": 8,
    },
}
_DIFFUSION = {
    "paper": {"steps": 60_000, "batch_size": 10, "loss": "l2"},
    "code": {"steps": 60_000, "batch_size": 10, "accumulation": 2, "loss": "l1"},
    "tiny": {
        "steps": 2_000,
        "batch_size": 4,
        "patch_size": (32, 32, 32),
        "learning_rate": 1e-3,
        "precision": "32",
        "workers": 0,
        "checkpoint_every": 100,
        "validate_every": 200,
        "channels": 16,
        "multipliers": (1, 2, 4),
        "heads": 4,
        "head_dim": 16,
        "jitter_mm": 4.0,
        "ema_start": 200,
        "ema_every": 1,
    },
}


Settings = TypeVar("Settings", bound=TrainingSettings)


def preset(kind: type[Settings], name: str) -> Settings:
    """Settings of one of PRESETS.

    Raises:
        InputError: for another name.
    """
    values = {AutoencoderTrainingSettings: _AUTOENCODER, DiffusionTrainingSettings: _DIFFUSION}[kind]
    if name not in values:
        raise InputError(f"preset {name!r}: expected one of {', '.join(values)}")
    return kind(**values[name])


def resolve(
    kind: type[Settings],
    *,
    preset_name: str,
    settings: Path | Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of a run. Each source overrides those that stand before it here.

    Args:
        kind: AutoencoderTrainingSettings or DiffusionTrainingSettings.
        preset_name: one of PRESETS.
        settings: YAML file, or mapping, with some of the keys.
        assignments: "key=value"; values as in YAML.
        options: keys that are arguments of their own; None values do not count.

    Raises:
        InputError: naming the source, the key, its value and what is allowed.
    """
    found = preset(kind, preset_name)
    if isinstance(settings, Mapping):
        found = _changed(found, settings, where="`settings`")
    elif settings is not None:
        found = _changed(found, _yaml_file(Path(settings)), where=str(settings))
    for text in assignments:
        where = f"`assignments` {text}"
        key, separator, value = text.partition("=")
        if not separator:
            raise InputError(f"{where}: expected key=value")
        found = _changed(found, {key.strip(): _yaml(value, where)}, where=where)
    for key, value in (options or {}).items():
        if value is not None:
            found = _changed(found, {key: value}, where=f"`{key}`")
    return found


def check_unchanged(stored: Mapping[str, Any], settings: TrainingSettings, *, where: str) -> None:
    """Refuses to resume a run with settings that change what a step computes.

    Args:
        stored: those that the run was started with, as JSON.
        settings: those that are asked for now.
        where: the run, for the error.

    Raises:
        InputError: with every key that is not of RESUMABLE_KEYS and differs.
    """
    now = json.loads(json.dumps(dataclasses.asdict(settings)))
    changed = [
        f"{key} was {stored.get(key)!r}, now {now.get(key)!r}"
        for key in sorted({*stored, *now} - RESUMABLE_KEYS)
        if stored.get(key) != now.get(key)
    ]
    if changed:
        raise InputError(
            f"{where}: was started with other settings ({'; '.join(changed)}); give the same, or start again with "
            f"`overwrite`. Only {', '.join(sorted(RESUMABLE_KEYS))} may change"
        )


def _changed(settings: Settings, values: Mapping[str, Any], *, where: str) -> Settings:
    check_keys(dict(values), type(settings), where)
    fitted = {key: _fitted(value, getattr(settings, key)) for key, value in values.items()}
    check = Checker(values, where)
    for field in dataclasses.fields(settings):
        # What is shown is the value as it was given.
        check.value(
            field.name, lambda _, field=field: field.metadata["good"](fitted[field.name]), field.metadata["allowed"]
        )
    return dataclasses.replace(settings, **fitted)


def _fitted(value: Any, like: Any) -> Any:
    """Whole numbers and texts such as 1e-4, which YAML does not take for numbers, as float; lists as tuples."""
    if isinstance(like, float) and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return value
    if isinstance(like, tuple) and isinstance(value, list | tuple):
        floats = len(like) > 0 and isinstance(like[0], float)
        return tuple(_fitted(item, like[0]) if floats else item for item in value)
    if isinstance(like, str) and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def _yaml_file(path: Path) -> Mapping[str, Any]:
    try:
        content = _yaml(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected lines of `key: value`, got {type(content).__name__}")
    return content


def _yaml(text: str, where: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML ({error})") from error
