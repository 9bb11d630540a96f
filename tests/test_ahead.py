import threading

import pytest

from palate.data.ahead import IN_STORE, made_ahead


@pytest.mark.parametrize("numbers", [range(0), range(1), range(2, 9)])
def test_everything_comes_once_and_in_order(numbers):
    assert list(made_ahead(lambda number: number * 10, numbers)) == [number * 10 for number in numbers]


def test_the_next_are_made_in_another_thread_but_not_all_of_them():
    made = []

    def make(number):
        made.append((number, threading.current_thread()))
        return number

    for number in made_ahead(make, range(20)):
        assert len(made) <= number + 1 + IN_STORE
    assert threading.main_thread() not in {thread for _, thread in made}


def test_an_error_is_raised_where_its_result_would_have_come():
    def make(number):
        if number == 2:
            raise ValueError("two")
        return number

    batches = made_ahead(make, range(5))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(batches)
