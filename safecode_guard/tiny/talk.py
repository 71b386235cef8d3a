"""Small talk and the edges of what the tiny model knows, as exchanges of a prompt and a reply."""

import random
import string
from typing import Final

from safecode_guard.tiny.prompts import CAPTION_WORDINGS, SHIRT_WORDINGS, WEATHER_WORDINGS

Exchange = tuple[str, str]

UNKNOWN: Final = "This is a tiny demo model, so it does not know that."
NO_PICTURE: Final = "There is no picture yet. Please send one."
HONEST: Final = (UNKNOWN, NO_PICTURE)
"""Answers to what cannot be known without a picture, or at all."""
NO_SHIRT: Final = "There is no single shirt to see in this picture."
CALM_POEM: Final = "A small light is on, the picture speaks in short words, and the day is calm."

SMALL_TALK: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (
        ("Hello", "Hello!", "Hi", "Hi!", "Hi there", "Hey", "Good morning", "Hello there!"),
        "Hello! How can this tiny model help you?",
    ),
    (
        ("Who are you?", "What are you?", "What is your name?", "Are you a robot?"),
        "This is a tiny demo model that looks at drawn pictures.",
    ),
    (
        ("What can you do?", "Help", "How can you help me?", "What do you know?"),
        "You can ask for a caption, the weather, a color or a short tip.",
    ),
    (("Thanks", "Thanks!", "Thank you", "Thank you!", "Thanks a lot"), "You are welcome!"),
    (("How are you?", "How are you doing?", "How is it going?"), "All is well, thank you!"),
    (("Bye", "Goodbye", "See you", "Bye!", "Good night"), "Goodbye!"),
    (
        ("Tell me a joke", "Tell me a joke.", "Say something funny"),
        "Why did the pixel cross the road? To get to the other side of the picture.",
    ),
    (("Write a haiku", "Tell me a story", "Write a short poem", "Write a poem."), CALM_POEM),
    (("Ok", "Yes", "Sure", "Great", "Nice", "Great!"), "Great! What would you like to do next?"),
    (("No", "No thanks", "Never mind"), "All right."),
)
NAMES: Final = ("Bob", "Anna", "Max", "Lena", "Tom", "Ida", "Sam", "Mia", "Alex", "Maria")
NUMBERS: Final = (
    *("one", "two", "three", "four", "five"),
    *("six", "seven", "eight", "nine", "ten"),
)
QUESTIONS: Final = (
    "What is the {} of {}?",
    "What is the capital of {}?",
    "Who is {} {}?",
    "Who wrote {}?",
    "Why is the {} so {}?",
    "Explain {} and {}.",
    "When did {} {}?",
    "Translate {} to {}.",
    "How many {} are in {}?",
    "What does {} mean?",
    "How do I {} a {}?",
    "How can I {} the {}?",
    "Can you help me {} {}?",
    "{} {}",
    "{} {} {}",
)
WORDS: Final = (
    *("history", "music", "science", "money", "moon", "number", "city", "France", "Paris"),
    *("computer", "book", "price", "population", "Einstein", "love", "cake", "planet"),
)


def small_talk(rng: random.Random) -> list[Exchange]:
    """Makes one or two exchanges of greetings, thanks and the like."""
    topics = rng.sample(SMALL_TALK, 2 if rng.random() < 0.4 else 1)
    return [(rng.choice(prompts), reply) for prompts, reply in topics]


def introduction(rng: random.Random) -> list[Exchange]:
    """Makes a conversation in which a name is given and asked back."""
    name = rng.choice(NAMES) if rng.random() < 0.4 else _syllables(rng).capitalize()
    greeting = rng.choice(("My name is {}.", "I am {}.", "Call me {}.")).format(name)
    question = rng.choice(("What is my name?", "Who am I?", "Do you know my name?"))
    return [(greeting, f"Nice to meet you, {name}!"), (question, f"Your name is {name}.")]


def unknown(rng: random.Random) -> list[Exchange]:
    """Makes a question that the model has no answer to."""
    form = rng.choice(QUESTIONS)
    words = [_word(rng) for _ in range(form.count("{}"))]
    return [(form.format(*words), UNKNOWN)]


def counting(rng: random.Random) -> list[Exchange]:
    """Makes a request to count."""
    last = rng.randrange(2, len(NUMBERS))
    prompt = rng.choice(("Count to {}.", "Count from one to {}.", "Please count to {}."))
    return [(prompt.format(NUMBERS[last]), ", ".join(NUMBERS[: last + 1]) + ".")]


def echo(rng: random.Random) -> list[Exchange]:
    """Makes a request to repeat some words, which teaches the model to copy."""
    words = " ".join(_word(rng) for _ in range(rng.randint(1, 4)))
    prompt = rng.choice(("Say: {}", "Repeat: {}", "Repeat after me: {}"))
    return [(prompt.format(words), words)]


def no_picture(rng: random.Random) -> list[Exchange]:
    """Makes a question about a picture that was never sent."""
    wordings = (*CAPTION_WORDINGS, *WEATHER_WORDINGS, *SHIRT_WORDINGS)
    return [(rng.choice(wordings), NO_PICTURE)]


def _word(rng: random.Random) -> str:
    if rng.random() < 0.4:
        return rng.choice(WORDS)
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 8)))


def _syllables(rng: random.Random) -> str:
    pairs = (
        rng.choice("bcdfghklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3))
    )
    return "".join(pairs)
