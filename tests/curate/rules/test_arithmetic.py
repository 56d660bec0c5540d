"""Arithmetic: what is wrong is found with what it should be; what is right, or not certain, is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.rules.arithmetic import wrong_equations

WRONG = {
    "There are 12 * 3 = 35 eggs.": "36",
    "1/2 + 1/4 = 2/3": "0.75",
    "15% of 80 is 13.": "12",
    "2 + 3 * 4 = 20": "14",
    "So 5 + 3 = 8 + 1 = 10.": "9",
    "7 x 8 = 54": "56",
    "$12.50 + $3.25 = $15.85": "15.75",
    "(24 * 3) + 8 \n= 72 + 8 \n= $81": "80",
    "12 times 3 equals 35": "36",
    "10 / 4 = 2.6": "2.5",
    "2^5 = 30": "32",
    "1,200 + 300 = 1,600": "1,500",
    "the sum of 6 + 4 = 14.": "10",
    "50 / 200 = 30%": "0.25",
    "3.5 * 2 = 8": "7",
    "1/3 = 0.34": "1/3",
    "9 - 12 = 3": "-3",
    "20 percent of 50 is 12.": "10",
    "45 - 21 = 21": "24",
    "2/3 = 0.5": "2/3",
}
LEFT_ALONE = [
    "12 * 3 = 36",
    "1/2 + 1/4 = 3/4",
    "10 / 3 = 3.33 and 2/3 = 0.67 or 0.66 or 0.666...",
    "10 / 3 = 3",
    "2x - 3 = 5, 3 x - 1 = 4",
    "Step 1 - 5 + 3 = 8",
    "17 mod 5 = 2 and 7 + 8 = 3 (mod 12)",
    "60 * 5 = 5 hours",
    "5 km + 500 m = 5.5 km",
    "0x10 = 16",
    "1 1/2 + 2 = 3 1/2",
    "f(3) = 2*3 + 1 = 7",
    "2 + 2 ≈ 5",
    "50/200 = 25% and 50/200 * 100 = 25%",
    "100 + 10% = 110",
    "3.14 * 5^2 = 78.54",
    "5! = 120",
    "1000 * (1 + 0.05)^3 = 1157.63",
    "90-100 = 4 points",
    "if (a[1] + 2 == 3)",
    "25/12/2020 = 3",
    "3² + 4² = 25",
    "log2(8) = 3 and sqrt(16) + 2 = 6",
    "10 000 + 5 = 10 005",
    "1 + 1 = 10 in binary",
    "5 + 3 = 8 * 2 = 16",
    "8 / 3 = 2 R 2",
    "(2, 3) + (4, 5) = (6, 8)",
    "```\nx = 1 + 1 = 3\n```",
    "about 33 * 37 = 1200",
    "9^99999999 = 3",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_equation_is_found_with_what_it_should_be(text: str) -> None:
    assert [wrong.value for wrong in wrong_equations(text)] == [WRONG[text]]


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_right_equations_and_what_is_not_certain_are_left_alone(text: str) -> None:
    assert list(wrong_equations(text)) == []


def test_an_equation_that_the_prompt_states_is_not_the_answers_mistake() -> None:
    assert list(wrong_equations("You wrote 2 + 2 = 5, a joke.", "Why is 2 + 2 = 5 funny?")) == []


@given(st.integers(0, 9999), st.integers(1, 999), st.sampled_from("+-*"), st.integers(-50, 50).filter(bool))
def test_whole_numbers_are_right_or_wrong_by_one(a: int, b: int, sign: str, off: int) -> None:
    value = {"+": a + b, "-": a - b, "*": a * b}[sign]
    assert list(wrong_equations(f"Here {a} {sign} {b} = {value}.")) == []
    assert len(list(wrong_equations(f"Here {a} {sign} {b} = {value + off}."))) == 1


@given(st.integers(0, 9999), st.integers(1, 999), st.integers(0, 4))
def test_a_quotient_may_be_rounded_to_any_digits(a: int, b: int, places: int) -> None:
    assert list(wrong_equations(f"Here {a} / {b} = {a / b:.{places}f}.")) == []


@given(st.text(alphabet="0123456789+-*/=().,%$ x^\n", max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    """And what it finds wrong is not what it says should stand there."""
    assert not [wrong for wrong in wrong_equations(text) if wrong.text.endswith(f"= {wrong.value}")]
