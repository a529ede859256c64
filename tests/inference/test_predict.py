"""Predictions equal the recipe one would write by hand, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ckptstore.errors import ArgumentError, MismatchError
from ckptstore.inference.predict import Predictor
from ckptstore.inference.preprocessing import check

NAMES = ["ant", "bee", "cat"]
MEAN, STD = np.array([0.1, -0.2, 0.3, 0.7]), np.array([1.1, 0.9, 2.3, 0.4])


def make(module=None, *, statistics=True, names=NAMES, shape=(4,), integers=False):
    torch.manual_seed(0)
    module = (module or nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))).eval()
    preprocessing = check({"mean": MEAN, "std": STD}) if statistics else None
    return Predictor(module, preprocessing, names, shape, integers=integers, ref="digits@4")


def by_hand(module, batch, dtype=torch.float32):
    """The recipe: float64 statistics, a cast, the model, argmax."""
    ready = torch.from_numpy((np.asarray(batch, np.float64) - MEAN) / STD).to(dtype)
    with torch.no_grad():
        return module(ready)


BATCH = np.random.default_rng(3).normal(size=(50, 4))


def test_a_batch_gives_a_list_of_names():
    predictor = make()
    expected = by_hand(predictor._module, BATCH).argmax(1).tolist()

    assert len(set(expected)) > 1
    assert predictor.predict(BATCH) == [NAMES[index] for index in expected]


def test_one_sample_gives_one_name():
    predictor = make()

    assert predictor.predict(BATCH[0]) == predictor.predict(BATCH)[0]
    assert predictor.predict(BATCH[:1]) == [predictor.predict(BATCH[0])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_equal_the_recipe_to_the_bit(dtype):
    predictor = make(nn.Linear(4, 3).to(dtype))
    expected = torch.softmax(by_hand(predictor._module, BATCH, dtype), 1).numpy()
    found = predictor.predict_proba(BATCH)

    assert found.dtype == expected.dtype
    assert (found == expected).all()
    assert predictor.predict_proba(BATCH[7]).shape == (3,)


def test_a_model_of_bf16_gets_statistics_in_float64():
    predictor = make(nn.Linear(4, 3).to(torch.bfloat16))
    expected = torch.softmax(by_hand(predictor._module, BATCH, torch.bfloat16).float(), 1).numpy()
    found = predictor.predict_proba(BATCH)

    assert found.dtype == np.float32
    assert (found == expected).all()


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.tolist(),
        torch.from_numpy,
        lambda x: torch.from_numpy(x).requires_grad_(),
        np.asfortranarray,
        lambda x: x[::-1][::-1],
        tuple,
        list,
    ],
    ids=["lists", "tensor", "with gradient", "fortran", "a view", "a tuple", "a list of arrays"],
)
def test_numpy_lists_and_tensors_are_the_same(convert):
    predictor = make()

    assert predictor.predict(convert(BATCH)) == predictor.predict(BATCH)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "float16", "bool"])
def test_numbers_of_any_kind_are_taken(dtype):
    predictor = make()
    batch = (BATCH * 3).astype(dtype)

    assert (predictor.predict_proba(batch) == predictor.predict_proba(batch.astype("f8"))).all()
    tensor = torch.from_numpy(batch)
    assert (predictor.predict_proba(tensor) == predictor.predict_proba(batch)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_numbers_that_numpy_lacks_are_taken(dtype):
    predictor = make()
    batch = torch.from_numpy(BATCH).to(dtype)

    assert predictor.predict(batch) == predictor.predict(batch.double())


def test_a_batch_of_nothing_gives_nothing():
    assert make().predict(np.empty((0, 4))) == []


def test_without_statistics_input_is_cast_to_the_models_dtype():
    predictor = make(statistics=False)
    with torch.no_grad():
        expected = predictor._module(torch.from_numpy(BATCH).float()).argmax(1).tolist()

    assert predictor.predict(BATCH) == [NAMES[index] for index in expected]


def test_without_a_shape_every_input_is_a_batch():
    predictor = make(statistics=False, shape=None)

    assert predictor.predict(BATCH[:1]) == make(statistics=False).predict(BATCH[:1])
    with pytest.raises(ArgumentError, match="not a single number"):
        predictor.predict(3.0)


def test_input_is_left_as_it_was():
    batch = BATCH.copy()
    tensor = torch.from_numpy(BATCH.copy())
    make().predict(batch)
    make(statistics=False).predict(tensor)

    assert (batch == BATCH).all()
    assert (tensor.numpy() == BATCH).all()


def test_predicting_keeps_no_graph_and_moves_no_generator():
    predictor = make(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)))
    before = torch.get_rng_state()
    predictor.predict(BATCH)

    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in predictor._module.parameters())


# ------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("shape", "found"),
    [((5,), r"\(5,\)"), ((2, 5), r"\(2, 5\)"), ((2, 2, 4), r"\(2, 2, 4\)"), ((), r"\(\)")],
)
def test_another_shape_names_both(shape, found):
    with pytest.raises(ArgumentError, match=rf"shape \(4,\) or a batch of shape \(N, 4\).*{found}"):
        make().predict(np.zeros(shape))


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ("four", "takes real numbers"),
        (None, "takes real numbers"),
        ([[1.0], [1.0, 2.0]], "takes numbers of one shape"),
        ([1j, 2j, 3j, 4j], "takes real numbers, not complex128"),
        (torch.zeros(4, dtype=torch.complex64), "takes real numbers, not complex64"),
        ([{}, {}, {}, {}], "takes real numbers"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(samples, said):
    with pytest.raises(ArgumentError, match=said):
        make().predict(samples)


class Constant(nn.Module):
    """Gives back whatever it was made with."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output(x)


OUTPUTS = {
    "one logit": lambda x: x[:, :1],
    "no class axis": lambda x: x[:, 0],
    "another number": lambda x: torch.zeros(len(x), 4),
    "another batch": lambda x: torch.zeros(len(x) + 1, 3),
    "three axes": lambda x: torch.zeros(len(x), 3, 3),
    "a tuple": lambda x: (x, x),
    "a dict": lambda x: {"logits": x},
}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=list(OUTPUTS))
@pytest.mark.parametrize("verb", ["predict", "predict_proba"])
def test_output_that_is_no_scores_points_to_the_model(output, verb):
    predictor = make(Constant(output))

    with pytest.raises(MismatchError, match=r"(?s)digits@4 .*should have shape .*Use .model") as e:
        getattr(predictor, verb)(BATCH)
    assert "(50, 3)" in str(e.value)


def test_one_logit_is_refused_without_names_too():
    with pytest.raises(MismatchError, match="two classes at least"):
        make(Constant(lambda x: x[:, :1]), names=None).predict_proba(BATCH)


def test_too_few_names_are_noticed():
    with pytest.raises(MismatchError, match=r"\(50, 2\), two classes at least, and \w+ \(50, 3\)"):
        make(names=["a", "b"]).predict(BATCH)


def test_without_names_there_are_probabilities_and_no_names():
    predictor = make(names=None)

    assert predictor.predict_proba(BATCH).shape == (50, 3)
    with pytest.raises(MismatchError, match=r"(?s)without class_names=.*Use .model"):
        predictor.predict(BATCH)


# ------------------------------------------------------------ integers


def tokens():
    torch.manual_seed(1)
    return nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 3))


def test_a_model_of_tokens_gets_integers():
    predictor = make(tokens(), statistics=False, shape=(3,), integers=True)
    batch = np.arange(9).reshape(3, 3)
    with torch.no_grad():
        expected = predictor._module(torch.from_numpy(batch)).argmax(1).tolist()

    assert predictor.predict(batch) == [NAMES[index] for index in expected]
    assert predictor.predict(batch.astype("uint8")) == predictor.predict(batch.tolist())
    assert predictor.predict(torch.tensor([1, 2, 3], dtype=torch.int32)) in NAMES


def test_a_model_of_tokens_refuses_to_cut_fractions_off():
    predictor = make(tokens(), statistics=False, shape=(3,), integers=True)

    with pytest.raises(ArgumentError, match="takes whole numbers, not float64"):
        predictor.predict([1.5, 2.0, 3.0])


# ------------------------------------------------------------ a model that cannot take its input


def test_a_model_of_floats_saved_with_a_sample_of_integers_says_what_to_do():
    predictor = make(statistics=False, integers=True)

    with pytest.raises(MismatchError, match="digits@4: its model raised RuntimeError") as raised:
        predictor.predict([[1, 2, 3, 4]])
    assert "shape (1, 4) of torch.int64: whole numbers are given as they are" in str(raised.value)
    assert "save the package with a sample= of floats" in str(raised.value)
    assert "use .model" in str(raised.value)
    assert isinstance(raised.value.__cause__, RuntimeError)


@pytest.mark.parametrize("statistics", [True, False])
def test_a_model_of_tokens_saved_without_integers_says_what_to_do(statistics):
    module = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(16, 3))
    predictor = make(module, statistics=statistics)

    with pytest.raises(MismatchError, match=r"of torch\.float32: ") as raised:
        predictor.predict_proba([[1, 2, 3, 4]])
    assert ("statistics are applied" in str(raised.value)) == statistics
    assert "save the package with a sample= of integers" in str(raised.value)
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError, KeyboardInterrupt])
def test_what_says_itself_what_is_wrong_passes_as_it_is(error):
    def fail(_):
        raise error

    with pytest.raises(error):
        make(Constant(fail)).predict(BATCH)
