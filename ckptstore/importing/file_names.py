"""What a file's name says: the epoch, the step, and metrics. Pure: touches no file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SUFFIX = re.compile(r"(?i)(\.(pth?|ckpt|bin|tar|th|pkl|pickle|safetensors|model|weights))+$")
AGAIN = re.compile(r"-v[0-9]+$")
"""What Lightning adds where a name is taken."""
# A word, a number, or a metric that has a digit in its name and its value after it.
TOKEN = re.compile(
    r"(?P<word>(?:(?:acc|prec|top)[15]|f1|r2|map50)(?=[=_:\- ])|[A-Za-z]+)"
    r"|(?P<number>(?:(?<==)-)?[0-9]+(?:\.[0-9]+)?(?:[eE]-?[0-9]+(?![A-Za-z0-9]))?)"
)
EPOCHS = frozenset({"epoch", "ep"})
"""Not ``e``, by which models are called too (e5), nor ``epochs``: how many there were to be."""
STEPS = frozenset({"step", "steps", "iter", "iters", "iteration", "iterations"})
SAVED = frozenset(
    {
        "checkpoint", "ckpt", "chkpt", "cp", "model", "weights", "weight", "net", "network", "save",
        "saved", "snapshot", "state",
    }
)  # fmt: skip
"""Words with which a number that says nothing else is an epoch."""
FIRST_YEAR = 1900
"""A number from here on that stands alone may be a year, a date, a size or a count of steps."""
DATE = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])[0-9]{2}")
SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "eval": "eval",
}  # fmt: skip
MEASURES = frozenset(
    {
        "loss", "acc", "acc1", "acc5", "accuracy", "top1", "top5", "prec1", "prec5", "f1", "auc",
        "auroc", "iou", "miou", "map", "map50", "bleu", "rouge", "ppl", "perplexity", "error",
        "err", "mae", "mse", "rmse", "nll", "psnr", "ssim", "fid", "score", "precision", "recall",
        "dice", "wer", "cer", "r2", "metric", "elbo", "reward", "bpd",
    }
)  # fmt: skip
GLUED = re.compile(
    rf"({'|'.join(sorted(SPLITS, key=len, reverse=True))})({'|'.join(sorted(MEASURES))})"
)
LARGEST = 2**62


@dataclass
class Named:
    """What a name says."""

    epoch: int | None = None
    step: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    digits: dict[str, int] = field(default_factory=dict)
    """How many digits behind the point each metric is written with."""


def read_name(name: str) -> Named:
    """Read ``model_epoch12_valloss0.31.pth``, ``epoch=3-step=1200-val_loss=0.12.ckpt`` and such.

    A number says what the word right before it says: an epoch (``epoch3``, ``epoch=3``, ``ep_3``),
    a step (``iter_2000``), or, with ``=`` before it or a point in it, a metric (``acc=1``,
    ``loss0.5``). One that stands alone behind a word such as ``ckpt`` or behind none, as in
    ``ckpt_0007.pt``, is an epoch if it is below 1900, so no year, date or size; in
    ``checkpoint-500``, as Hugging Face names its folders, a step. A number that letters follow at
    once (``map3d``, ``10k``) is part of a word.
    """
    stem = AGAIN.sub("", SUFFIX.sub("", name))
    found, words, end = Named(), list[str](), 0
    alone: list[tuple[list[str], str, str]] = []
    for token in TOKEN.finditer(stem):
        word, text = token["word"], token["number"]
        if word is not None:
            words.append(word.lower())
        else:
            between = stem[end : token.start()]
            is_word = stem[token.end() : token.end() + 1].isalpha()
            if not is_word and not _take(found, words, between, text):
                alone.append((words, between, text))
            words = ["", text] if is_word else []
        end = token.end()
    if found.epoch is None and found.step is None and len(alone) == 1 and not words:
        _take_alone(found, *alone[0])
    return found


def is_measure(name: str) -> bool:
    """Say whether a name is that of a metric: ``val_loss``, ``valloss``, ``best_acc1``."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    return any(word in MEASURES or GLUED.fullmatch(word) for word in words)


def _take(found: Named, words: list[str], between: str, text: str) -> bool:
    last = words[-1] if words else ""
    is_whole = text.isdigit() and int(text) < LARGEST
    if last in EPOCHS and is_whole and found.epoch is None:
        found.epoch = int(text)
    elif last in STEPS and is_whole and found.step is None:
        found.step = int(text)
    elif is_measure(last) and ("=" in between or "." in text or "e" in text.lower()):
        metric = _metric(words)
        if metric in found.metrics:
            return False
        found.metrics[metric] = float(text)
        found.digits[metric] = len(text.partition(".")[2])
    else:
        return False
    return True


def _take_alone(found: Named, words: list[str], between: str, text: str) -> None:
    if not text.isdigit() or int(text) >= LARGEST:
        return
    if words == ["checkpoint"] and between == "-":
        if not DATE.match(text):
            found.step = int(text)
    elif (not words or words[-1] in SAVED) and int(text) < FIRST_YEAR:
        found.epoch = int(text)


def _metric(words: list[str]) -> str:
    glued = GLUED.fullmatch(words[-1])
    if glued:
        return f"{SPLITS[glued[1]]}_{glued[2]}"
    before = words[-2] if len(words) > 1 else ""
    return f"{SPLITS[before]}_{words[-1]}" if before in SPLITS else words[-1]
