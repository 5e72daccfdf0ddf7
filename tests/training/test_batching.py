import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from medical_vqa.training.batching import BatchPlan

images_of_rows = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60)


@given(images=images_of_rows, size=st.integers(1, 20), processes=st.integers(1, 3), epoch=st.integers(0, 5))
def test_an_epoch_holds_every_row_once(images, size, processes, epoch):
    for grouping in ("image", "question"):
        plan = BatchPlan(images, size, grouping, seed=3, processes=processes)
        assert Counter(row for batch in plan.epoch(epoch) for row in batch) == Counter(range(len(images)))


@given(images=images_of_rows, size=st.integers(1, 20), processes=st.integers(1, 3))
def test_the_rows_of_all_processes_make_up_the_batch(images, size, processes):
    plan = BatchPlan(images, size, processes=processes)
    for batch in plan.epoch(0):
        parts = [plan.rows_of(process, batch) for process in range(processes)]
        assert sorted(row for part in parts for row in part) == sorted(batch)
        assert all(parts) or len(batch) < processes


def test_the_questions_of_an_image_stay_together():
    images = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    batches = BatchPlan(images, batch_size=8).epoch(0)
    assert sorted(len(batch) for batch in batches) == [4, 8]
    homes = Counter(image for batch in batches for image in {images[row] for row in batch})
    assert set(homes.values()) == {1}


def test_an_image_with_more_questions_than_a_batch_is_spread():
    assert sorted(map(len, BatchPlan(["a"] * 5, batch_size=2).epoch(0))) == [1, 2, 2]


def test_the_order_is_a_function_of_seed_and_epoch():
    plan = BatchPlan([str(i) for i in range(50)], batch_size=5, seed=1)
    assert plan.epoch(3) == plan.epoch(3)
    assert plan.epoch(3) != plan.epoch(4)
    assert plan.epoch(3) != BatchPlan(plan.images, batch_size=5, seed=2).epoch(3)


def test_two_processes_with_half_the_batch_take_the_steps_of_one():
    for rows in (60, 61):  # a single row is left over
        images = [str(i) for i in range(rows)]
        one, two = BatchPlan(images, batch_size=12), BatchPlan(images, batch_size=6, processes=2)
        assert one.epoch(0) == two.epoch(0)
        assert len(two.epoch(0)) == math.ceil(rows / 12)
