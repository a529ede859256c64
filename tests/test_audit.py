"""An audit says in lines what a restore did and what it did not."""

from __future__ import annotations

from ckptstore.audit import Audit, Overridden, StateLeft


def test_a_restore_that_did_all_is_one_line():
    assert str(Audit(("model", "optimizer", "rng"))) == "restored: model, optimizer, rng"


def test_a_restore_that_did_nothing_says_so():
    assert str(Audit()) == "restored: nothing"


def test_each_thing_that_is_otherwise_has_its_line():
    audit = Audit(
        restored=("model", "optimizer"),
        not_asked_for=("scheduler",),
        not_saved=("ema", "rng"),
        overridden=(Overridden("optimizer/param_groups/0/lr", 0.1, 0.01),),
        environment={"threads": (8, 2)},
    )

    assert str(audit).splitlines() == [
        "restored: model, optimizer",
        "not saved, left as they are: ema, rng",
        "saved, not asked for: scheduler",
        "optimizer/param_groups/0/lr: the script has 0.1, the checkpoint had 0.01 and was followed",
        "threads: was 8, is 2",
    ]


def test_what_a_checkpoint_says_is_shown_and_never_obeyed():
    audit = Audit(("mod\x1b[2Jel",), environment={"torch": ("2\n3", "2.9")})

    assert str(audit) == "restored: mod\\x1b[2Jel\ntorch: was '2\\n3', is '2.9'"


def test_what_is_left_of_an_optimizers_state_has_a_line_for_each_reason():
    left = StateLeft(("model/a",), ("model/b", "model/c"), ("model/d",), ("model/e",))
    assert str(Audit(("optimizer",), state_left={"optimizer": left})).splitlines()[1:] == [
        "optimizer, state not put back: keys that were not chosen: model/a",
        "optimizer, state not put back: nothing was saved for: model/b, model/c",
        "optimizer, state not put back: saved, and of no use here: model/d",
        "optimizer, state not put back: of another shape: model/e",
    ]
    assert not StateLeft()


def test_a_long_value_is_cut():
    audit = Audit(environment={"gpus": (["H100"] * 1000, [])})

    assert len(str(audit)) < 300
    assert "…, is []" in str(audit)
