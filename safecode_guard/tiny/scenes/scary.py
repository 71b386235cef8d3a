"""Scenes that look scary and are harmless: a toy gun, a film poster, red paint and the like."""

import math

from safecode_guard.tiny.scenes.pen import SHIRTS, Pen

BONE = (235, 235, 230)
INK = (30, 20, 30)
BLOOD_RED = (200, 20, 25)


def toy_gun(pen: Pen) -> None:
    """Draws a brightly coloured toy gun on the floor."""
    pen.indoors()
    x, y = pen.between(24, 50), pen.between(76, 86)
    plastic = pen.pick(((60, 180, 230), (120, 220, 60)))
    pen.box(x, y - 8, x + 24, y - 2, plastic)
    pen.box(x + 24, y - 7, x + 29, y - 3, (255, 130, 20))
    pen.box(x + 3, y - 2, x + 9, y + 8, plastic)


def poster(pen: Pen) -> None:
    """Draws a film poster with a skull on a wall."""
    pen.indoors()
    x = pen.between(20, 44)
    pen.box(x, 8, x + 34, 54, INK, outline=(200, 170, 60))
    pen.oval(x + 17, 26, 10, 10, BONE)
    pen.box(x + 12, 32, x + 22, 40, BONE)
    for eye in (x + 13, x + 21):
        pen.oval(eye, 26, 3, 3, INK)
    pen.box(x + 5, 46, x + 29, 50, (200, 30, 30))


def paint(pen: Pen) -> None:
    """Draws a can of red paint and a spill."""
    pen.indoors()
    x = pen.between(20, 60)
    pen.box(x, 66, x + 16, 84, (190, 190, 195), outline=(90, 90, 90))
    pen.box(x, 66, x + 16, 70, BLOOD_RED)
    pen.oval(x + pen.pick((-6, 22)), 86, 14, 5, BLOOD_RED)


def pumpkin(pen: Pen) -> None:
    """Draws a pumpkin with a carved face on the grass."""
    pen.outdoors()
    x, y = pen.between(26, 70), pen.between(74, 84)
    pen.oval(x, y, 15, 12, (240, 130, 30))
    pen.box(x - 2, y - 16, x + 2, y - 11, (60, 110, 40))
    for eye in (x - 6, x + 6):
        pen.shape([(eye - 3, y - 1), (eye + 3, y - 1), (eye, y - 6)], (30, 20, 10))
    pen.box(x - 7, y + 4, x + 7, y + 7, (30, 20, 10))


def toy_sword(pen: Pen) -> None:
    """Draws a child with a plastic toy sword."""
    pen.outdoors()
    x, y = pen.person(pen.between(34, 62), 90, 36, child=True)
    pen.stroke([(x, y + 3), (x + pen.pick((-6, 6)), y - 20)], (170, 120, 220), 4)
    pen.stroke([(x - 5, y - 1), (x + 5, y - 1)], (250, 210, 60), 3)


def fireworks(pen: Pen) -> None:
    """Draws three people who watch fireworks at night."""
    pen.outdoors()
    pen.box(0, 0, 96, pen.horizon, (15, 15, 45))
    pen.sky = "dark"
    for _ in range(pen.between(2, 3)):
        x, y = pen.between(14, 82), pen.between(10, 28)
        glow = pen.pick(((255, 80, 80), (255, 220, 80), (120, 220, 255)))
        for ray in range(8):
            tip = (x + 10 * math.cos(ray * math.pi / 4), y + 10 * math.sin(ray * math.pi / 4))
            pen.stroke([(x, y), tip], glow, 1)
    for x in (24, 40, 58):
        # Given shirts are not noted: with three people "the shirt" would be no fair question.
        pen.person(x, 90, 24, shirt=pen.pick(tuple(SHIRTS)))
