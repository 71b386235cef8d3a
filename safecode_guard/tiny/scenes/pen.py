"""The pen: shapes, settings and things, with every random choice from one seeded generator."""

import math
import random
from collections.abc import Sequence
from typing import Final, Literal, TypeVar

from PIL import Image, ImageDraw

T = TypeVar("T")

Colour = tuple[int, int, int]
Point = tuple[float, float]
Sky = Literal["sunny", "cloudy", "dark", "indoor"]

SIZE: Final = 96
SKIES: Final[tuple[Sky, ...]] = ("sunny", "cloudy", "dark", "indoor")
SHIRTS: Final[dict[str, Colour]] = {
    "red": (205, 50, 45),
    "blue": (50, 80, 200),
    "green": (40, 150, 70),
    "yellow": (230, 195, 40),
    "white": (240, 240, 240),
}

BLACK: Final = (20, 20, 20)
WHITE: Final = (250, 250, 250)
WOOD: Final = (110, 75, 45)
GRASS: Final = (95, 160, 80)
WINDOW: Final = (170, 210, 240)
SCREEN: Final = (120, 220, 250)
SKIN: Final = (224, 172, 130)
TROUSERS: Final = (50, 50, 90)
HAIR: Final = ((60, 40, 20), (20, 20, 20), (200, 160, 80))
SKY_COLOURS: Final[dict[Sky, Colour]] = {
    "sunny": (135, 200, 245),
    "cloudy": (165, 170, 178),
    "dark": (25, 28, 60),
}
WALLS: Final = ((225, 215, 195), (200, 215, 225), (215, 225, 205), (235, 225, 230))
FLOORS: Final = ((165, 120, 80), (140, 140, 145), (190, 160, 120))
FABRICS: Final = ((120, 70, 60), (70, 90, 130), (90, 120, 80))


class Pen:
    """Draws one square picture and notes the sky and the shirt that a question may ask about."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.image = Image.new("RGB", (SIZE, SIZE))
        self.horizon = 0
        self.sky: Sky = "indoor"
        self.shirt: str | None = None
        self._canvas = ImageDraw.Draw(self.image)

    # Chance ----------------------------------------------------------------------------------

    def between(self, low: int, high: int) -> int:
        """Picks a whole number, both ends included."""
        return self.rng.randint(low, high)

    def pick(self, options: Sequence[T]) -> T:
        """Picks one of the options."""
        return self.rng.choice(options)

    def chance(self, probability: float) -> bool:
        """Says yes with the given probability."""
        return self.rng.random() < probability

    def shade(self, colour: Colour, spread: int = 14) -> Colour:
        """Moves each channel of a colour a little."""
        red, green, blue = (
            max(0, min(255, value + self.rng.randint(-spread, spread))) for value in colour
        )
        return red, green, blue

    # Shapes ----------------------------------------------------------------------------------

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: Colour,
        outline: Colour | None = None,
    ) -> None:
        """Fills a rectangle given by any two opposite corners."""
        corners = [min(left, right), min(top, bottom), max(left, right), max(top, bottom)]
        self._canvas.rectangle(corners, fill=fill, outline=outline)

    def oval(
        self,
        x: float,
        y: float,
        across: float,
        down: float,
        fill: Colour,
        outline: Colour | None = None,
    ) -> None:
        """Fills an ellipse given by its centre and its two radii."""
        corners = [x - across, y - down, x + across, y + down]
        self._canvas.ellipse(corners, fill=fill, outline=outline)

    def shape(self, points: Sequence[Point], fill: Colour, outline: Colour | None = None) -> None:
        """Fills a polygon."""
        self._canvas.polygon(list(points), fill=fill, outline=outline)

    def stroke(self, points: Sequence[Point], fill: Colour, width: int = 2) -> None:
        """Draws connected line segments."""
        self._canvas.line(list(points), fill=fill, width=width)

    def slice(self, corners: Sequence[float], start: int, end: int, fill: Colour) -> None:
        """Fills a slice of an ellipse between two angles in degrees."""
        self._canvas.pieslice(list(corners), start, end, fill=fill)

    # Settings --------------------------------------------------------------------------------

    def outdoors(self, ground: Colour = GRASS) -> None:
        """Paints one of three skies above a ground and notes where they meet."""
        self.sky = self.pick(SKIES[:3])
        self.horizon = self.between(38, 50)
        self.box(0, 0, SIZE, self.horizon, self.shade(SKY_COLOURS[self.sky], 10))
        self.box(0, self.horizon, SIZE, SIZE, self.shade(ground))
        x = self.between(8, 88)
        if self.sky == "sunny":
            self.oval(x, 10, 7, 7, (255, 220, 60))
        elif self.sky == "dark":
            self.oval(x, 10, 5, 5, (240, 240, 210))
        else:
            for puff in range(3):
                self.oval((x + puff * 7) % SIZE, 10 + puff % 2 * 3, 8, 5, (225, 225, 230))

    def indoors(self, wall: Colour | None = None) -> None:
        """Paints a wall, a floor and sometimes a window."""
        self.sky = "indoor"
        self.horizon = self.between(60, 68)
        self.box(0, 0, SIZE, self.horizon, self.shade(wall or self.pick(WALLS), 8))
        self.box(0, self.horizon, SIZE, SIZE, self.shade(self.pick(FLOORS)))
        if self.chance(0.5):
            x = self.between(2, 70)
            self.box(x, 6, x + 16, 22, WINDOW, outline=(120, 90, 60))

    def clutter(self) -> None:
        """Scatters up to three small specks that mean nothing."""
        for _ in range(self.between(0, 3)):
            x, y, side = self.between(0, SIZE), self.between(0, SIZE), self.between(1, 3)
            colour = (self.between(40, 220), self.between(40, 220), self.between(40, 220))
            self.box(x, y, x + side, y + side, colour)

    # Things that several scenes share --------------------------------------------------------

    def tree(self, x: float, y: float, height: float = 26) -> None:
        """Draws a tree that stands on (x, y)."""
        self.box(x - 2, y - height / 2, x + 2, y, WOOD)
        crown = self.shade((45, 125, 55))
        self.oval(x, y - height * 0.7, height * 0.32, height * 0.36, crown)

    def table(self, y: float) -> None:
        """Draws a wide table whose top is at y."""
        self.box(6, y, 90, y + 5, self.shade((150, 100, 60)))
        for x in (10, 82):
            self.box(x, y + 5, x + 4, 92, WOOD)

    def sofa(self, left: float, right: float, seat: float, back: float) -> None:
        """Draws a sofa seen from the front."""
        fabric = self.pick(FABRICS)
        self.box(left, seat, right, 84, fabric)
        self.box(left, back, right, seat + 5, self.shade(fabric, 20))

    def person(
        self, x: float, y: float, height: float, *, child: bool = False, shirt: str | None = None
    ) -> Point:
        """Draws someone standing on (x, y) and returns where the free hand is.

        Args:
            child: Draws a larger head.
            shirt: A colour name; without one a colour is picked and noted as the scene's shirt.
        """
        if shirt is None:
            shirt = self.shirt = self.pick(tuple(SHIRTS))
        head = height * (0.19 if child else 0.13)
        shoulder = y - height * 0.74
        for leg in (-0.06, 0.06):
            centre = x + height * leg
            self.box(centre - height * 0.04, y - height * 0.42, centre + height * 0.04, y, TROUSERS)
        self.box(x - height * 0.14, shoulder, x + height * 0.14, y - height * 0.38, SHIRTS[shirt])
        self.oval(x, shoulder - head * 0.8, head, head, SKIN)
        crown = [x - head, shoulder - head * 1.8, x + head, shoulder + head * 0.2]
        self.slice(crown, 180, 360, self.pick(HAIR))
        side = self.pick((-1, 1))
        hand = (x + side * height * 0.32, y - height * 0.55)
        elbow = (x + side * height * 0.12, y - height * 0.68)
        self.stroke([elbow, hand], SKIN, max(2, int(height * 0.09)))
        return hand

    def knife(self, x: float, y: float, length: float, angle: float) -> None:
        """Draws a knife from its handle end at (x, y) along an angle in radians."""
        dx, dy = math.cos(angle) * length, math.sin(angle) * length
        neck = (x + dx * 0.35, y + dy * 0.35)
        belly = (x + dx * 0.4 - dy * 0.2, y + dy * 0.4 + dx * 0.2)
        self.stroke([(x, y), neck], (60, 40, 30), 4)
        self.shape([neck, (x + dx, y + dy), belly], (220, 225, 232), outline=(130, 130, 140))

    def flame(self, x: float, y: float, height: float) -> None:
        """Draws a flame that stands on (x, y)."""
        outer = [(-0.4, 0), (-0.3, 0.6), (-0.1, 0.35), (0, 1), (0.15, 0.4), (0.35, 0.65), (0.4, 0)]
        inner = [(-0.2, 0.0), (0.0, 0.5), (0.2, 0.0)]
        for outline, colour in ((outer, (240, 110, 25)), (inner, (255, 220, 70))):
            self.shape([(x + a * height, y - b * height) for a, b in outline], colour)
