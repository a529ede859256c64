"""What keeps a training from going on with part of its state anew."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

MUTANTS = [
    Mutant(
        "a parameter that only an optimizer has is kept",
        "saving/capture.py",
        "            state = {**state, VALUES: values}\n",
        "            pass\n",
        by="tests/loading/test_values.py::test_it_goes_on_as_if_nothing_had_happened",
    ),
    Mutant(
        "and put back",
        "loading/restore.py",
        "                plan.values[name].put()\n",
        "",
        by="tests/loading/test_values.py::test_it_goes_on_as_if_nothing_had_happened",
    ),
    Mutant(
        "what another part has is not kept twice",
        "saving/ownerless.py",
        "            or known.issuperset(memories(each) or [each])\n",
        "",
        by="tests/saving/test_ownerless.py::test_what_any_other_part_has_is_not",
    ),
    Mutant(
        "a parameter's value is not narrowed with the optimizer's state",
        "saving/narrowing.py",
        '        if part.kind == "optimizer" and path.startswith(f"{VALUES}/"):\n',
        "        if False:\n",
        by="tests/saving/test_ownerless.py::test_only_the_optimizers_own_state_is_narrowed",
    ),
    Mutant(
        "a value of another form is refused before anything is touched",
        "loading/restore.py",
        "            mismatches[name] = [*moments[name].problems, *values[name].problems]\n",
        "            mismatches[name] = [*moments[name].problems]\n",
        by="tests/loading/test_values.py::test_a_shape_without_moments_is_compared_too_and_left_if_that_is_asked_for",
    ),
    Mutant(
        "values by number that are none",
        "loading/values.py",
        "        type(number) is int and isinstance(value, torch.Tensor) for number",
        "        True for number",
        by="tests/loading/test_values.py::test_values_that_are_none_are_refused",
    ),
    Mutant(
        "an optimizer around another is not taken for one of torch's",
        "state/layouts.py",
        '    return gives_torchs or len(state["state"]) == len(optimizer.state)\n',
        "    return True\n",
        by="tests/state/test_layouts.py::test_one_whose_state_is_anothers_is_not",
    ),
    Mutant(
        "nor one that has no state of its own",
        "state/layouts.py",
        "    if not has_torchs_layout(state) or not has_own_state(optimizer):\n",
        "    if not has_torchs_layout(state):\n",
        by="tests/state/test_layouts.py::test_one_that_has_no_state_at_all_is_not",
    ),
    Mutant(
        "an average's names are those inside",
        "loading/load.py",
        "    inner = is_average(infos[part]) and",
        "    inner = False and",
        by="tests/loading/test_averages.py::test_it_is_loaded_as_the_module_inside",
    ),
    Mutant(
        "an average is known by its class, and not by its keys",
        "loading/averages.py",
        "    return info.class_name == AVERAGED\n",
        "    return True\n",
        by="tests/loading/test_averages.py::test_nothing_is_taken_for_an_average_by_its_keys",
    ),
    Mutant(
        "frozen weights of other values are told",
        "loading/frozen.py",
        "    return tensor_digest(mine.detach()) != form.digest\n",
        "    return False\n",
        by="tests/loading/test_frozen.py::test_other_frozen_weights_are_warned_of_by_name",
    ),
    Mutant(
        "frozen weights that look otherwise are hashed again",
        "saving/leaving_out.py",
        "            found = basis.left_out.get((part.name, key, known.sample))\n",
        "            found = next(iter(basis.left_out.values()), None)\n",
        by="tests/saving/test_leaving_out.py::test_what_is_left_out_again_is_hashed_once_as_long_as_it_looks_the_same",
    ),
    Mutant(
        "a tensor that torch takes for a list is no place",
        "loading/boxes.py",
        "    if isinstance(item, torch.Tensor) and (item.dim() or",
        "    if isinstance(item, torch.Tensor) and (False or",
        by="tests/loading/test_boxes.py::test_an_index_that_is_no_box_is_refused",
    ),
]
