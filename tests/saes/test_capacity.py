import jax
import pytest

from saes import capacity, lanes
from tests.saes.settings import D, batches, mesh, sae, train
from tests.saes.test_lanes import start

GIB = 2**30


def choose(count, memory, platform="gpu", devices=1, **config):
    return capacity.choose(
        count, sae(n_features=16384, k=64), train(batch_size=4096, tokens=10**6), 768, devices, platform, memory, **config
    )


def test_what_fits_is_trained_at_once_and_more_in_rounds():
    assert choose(8, 80 * GIB).at_once >= 8
    few = choose(96, 16 * GIB)
    assert 2 <= few.at_once < 96 and few.at_once % few.width == 0 and few.width >= 2
    assert choose(96, 80 * GIB).at_once > few.at_once
    assert choose(96, 16 * GIB, devices=4).at_once >= 3 * few.at_once
    arguments = sae(n_features=16384, k=64), train(batch_size=4096, tokens=10**6), 768
    held, work = capacity.bytes_per_lane(*arguments)
    long = sae(n_features=16384, k=64), train(batch_size=4096, tokens=10**8, steps_per_dispatch=64), 768
    shared, own = (capacity.choose(96, *long, 1, "gpu", 80 * GIB, own_batches=o).at_once for o in (False, True))
    assert own < shared
    assert few.at_once * held + few.width * work <= 16 * GIB


def test_too_little_for_two_names_the_fields():
    with pytest.raises(
        ValueError, match=r"config.sae.n_features=16384 at config.train.batch_size=4096 need about .* GiB, a device has 0.9 for them"
    ):
        choose(8, 1 * GIB)


def test_the_config_goes_first_and_a_group_is_never_a_single_one():
    assert choose(8, 80 * GIB, seeds_at_once=3, lanes=2) == (2, 2)
    assert choose(96, 80 * GIB, seeds_at_once=21).at_once <= 21
    assert choose(96, 80 * GIB, seeds_at_once=8) == (8, 8)
    assert choose(1, 80 * GIB).width == 2
    assert choose(96, 80 * GIB, platform="cpu").width == 2
    assert choose(9, 80 * GIB, devices=4, seeds_at_once=12, lanes=3) == (12, 3)


@pytest.mark.parametrize("name", ["topk", "jumprelu"])
def test_the_count_of_bytes_is_near_what_xla_holds(name):
    """The state, and what the compiled step holds beside it, of two groups of two: within a factor of two."""
    c, t, plan = sae(variant=name, n_features=2048, k=16), train(batch_size=16), lanes.plan_lanes(4, 1, 2)
    state = start((0, 1, 2, 3), plan, c)
    compiled = lanes.make_train_steps(plan, c, t, mesh()).lower(state, batches()).compile().memory_analysis()
    held, work = capacity.bytes_per_lane(c, t, D)
    in_state = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert 0.9 <= 4 * held / 3 / in_state <= 1.4
    assert 0.5 <= (4 * held / 3 + 2 * work) / compiled.temp_size_in_bytes <= 2.0
