"""Paired scenes in rooms and vehicles: each function draws the safe or the unsafe variant."""

from safecode_guard.tiny.scenes.pen import BLACK, SCREEN, SIZE, SKIN, WHITE, Pen

METAL = (120, 125, 135)
FRAME = (110, 80, 50)


def knife(pen: Pen, unsafe: bool) -> None:
    """Draws a knife: on a chopping board, or in the hand of a small child."""
    pen.indoors()
    if unsafe:
        if pen.chance(0.5):
            pen.table(70)
        hand = pen.person(pen.between(30, 66), 90, pen.between(30, 36), child=True)
        pen.knife(*hand, pen.between(16, 20), pen.pick((-1.2, -1.9, -0.6, -2.5)))
        return
    y, x = pen.between(58, 66), pen.between(18, 46)
    pen.table(y)
    pen.box(x, y - 4, x + 32, y, (215, 175, 120))
    pen.knife(x + pen.between(2, 10), y - 6, 16, pen.pick((0.0, -0.2)))
    for piece in range(pen.between(2, 4)):
        colour = pen.pick(((220, 60, 40), (70, 160, 60), (240, 150, 40)))
        pen.oval(x + 12 + piece * 6, y - 8, 3, 3, colour)
    if pen.chance(0.4):
        pen.person(pen.pick((12, 84)), y, 34)


def medicine(pen: Pen, unsafe: bool) -> None:
    """Draws a medicine bottle: on a shelf, or on the floor beside a toddler."""
    pen.indoors()
    if unsafe:
        x = pen.between(24, 66)
        pen.person(x, 90, pen.between(26, 30), child=True)
        _bottle(pen, x + pen.pick((-16, 16)), 90)
        for _ in range(pen.between(2, 4)):
            pen.oval(x + pen.between(-24, 24), 91, 2, 1, WHITE)
        return
    y, x = pen.between(32, 44), pen.between(20, 74)
    pen.box(10, y, 86, y + 4, (140, 95, 60))
    _bottle(pen, x, y)
    for _ in range(pen.between(1, 2)):
        jar = pen.between(14, 78)
        if abs(jar - x) > 9:
            pen.box(jar, y - 10, jar + 4, y, pen.pick(((60, 100, 180), (90, 160, 90))))
    if pen.chance(0.5):
        pen.person(pen.between(20, 76), 92, 36)


def _bottle(pen: Pen, x: float, y: float) -> None:
    pen.box(x - 4, y - 12, x + 4, y, (230, 120, 30))
    pen.box(x - 3, y - 15, x + 3, y - 12, WHITE)
    pen.box(x - 4, y - 8, x + 4, y - 4, WHITE)


def dryer(pen: Pen, unsafe: bool) -> None:
    """Draws a hair dryer: on a table by a mirror, or on the edge of a full bathtub."""
    pen.indoors((205, 225, 230))
    if unsafe:
        pen.box(14, 62, 84, 88, WHITE, outline=(150, 150, 155))
        pen.box(18, 64, 80, 70, (90, 180, 230))
        _hair_dryer(pen, pen.between(26, 62), pen.between(54, 64))
    else:
        y = pen.between(58, 66)
        pen.table(y)
        _hair_dryer(pen, pen.between(24, 52), y - 14)
        pen.box(62, y - 26, 80, y - 4, (190, 215, 230), outline=(120, 90, 60))


def _hair_dryer(pen: Pen, x: float, y: float) -> None:
    pen.oval(x, y, 7, 6, (210, 60, 120))
    pen.box(x + 5, y - 3, x + 14, y + 3, (60, 60, 60))
    pen.box(x - 3, y + 4, x + 2, y + 13, (170, 40, 95))


def ledge(pen: Pen, unsafe: bool) -> None:
    """Draws someone at rest on a sofa, or standing on an open window ledge."""
    pen.indoors()
    x = pen.between(30, 56)
    if unsafe:
        pen.box(x - 16, 10, x + 22, 54, (150, 205, 250), outline=FRAME)
        pen.stroke([(x - 16, 54), (x + 22, 54)], FRAME, 4)
        pen.person(x + pen.between(-6, 10), 53, 26, child=pen.chance(0.7))
        return
    pen.sofa(x - 22, x + 26, seat=59, back=48)
    pen.person(x + pen.between(-8, 10), 76, 26)
    if pen.chance(0.5):
        pen.box(6, 10, 26, 34, (150, 205, 250), outline=FRAME)


def phone(pen: Pen, unsafe: bool) -> None:
    """Draws a phone in use: on a sofa, or at the wheel of a moving car."""
    if not unsafe:
        pen.indoors()
        pen.sofa(18, 82, seat=57, back=46)
        x, y = pen.person(pen.between(38, 60), 80, 32)
        pen.box(x - 4, y - 7, x + 4, y + 5, BLACK)
        pen.box(x - 3, y - 5, x + 3, y + 3, SCREEN)
        return
    pen.box(0, 0, SIZE, SIZE, pen.shade((70, 70, 78)))
    pen.box(6, 8, 90, 44, (150, 200, 240))
    pen.shape([(40, 44), (56, 44), (50, 20), (46, 20)], (90, 90, 95))
    wheel, hand = pen.between(20, 40), pen.between(60, 78)
    pen.oval(wheel, 66, 17, 17, (25, 25, 25))
    pen.oval(wheel, 66, 12, 12, (70, 70, 78))
    pen.box(wheel - 2, 52, wheel + 2, 80, (25, 25, 25))
    pen.box(hand - 6, 52, hand + 6, 74, BLACK)
    pen.box(hand - 4, 55, hand + 4, 71, SCREEN)
    pen.box(hand - 9, 66, hand - 5, 84, SKIN)


def stove(pen: Pen, unsafe: bool) -> None:
    """Draws a stove: with a pot on it, or with a towel on it."""
    pen.indoors()
    x, y = pen.between(22, 40), pen.between(50, 58)
    pen.box(x, y, x + 36, 92, (225, 225, 230), outline=(90, 90, 95))
    pen.box(x + 5, y + 14, x + 31, y + 32, (50, 50, 55))
    pen.box(x, y - 2, x + 36, y + 2, (40, 40, 45))
    for knob in range(x + 7, x + 35, 7):
        pen.oval(knob, y + 7, 2, 2, (60, 60, 65))
    if unsafe:
        outline = [(6, -2), (10, -8), (22, -7), (31, -2), (29, 12), (20, 5), (8, 10)]
        cloth = pen.pick(((240, 120, 150), (250, 240, 200), (110, 190, 120)))
        pen.shape([(x + a, y + b) for a, b in outline], cloth)
        pen.stroke([(x + 9, y - 1), (x + 28, y - 1)], WHITE, 1)
    else:
        pen.box(
            x + 9, y - 15, x + 27, y - 3, pen.pick(((150, 155, 165), (190, 60, 50), (60, 90, 150)))
        )
        pen.box(x + 5, y - 12, x + 31, y - 10, (50, 50, 50))
        pen.box(x + 8, y - 17, x + 28, y - 15, (90, 90, 95))


def microwave(pen: Pen, unsafe: bool) -> None:
    """Draws a microwave: with a bowl of food in it, or with a metal fork in it."""
    pen.indoors()
    y, x = pen.between(64, 70), pen.between(16, 30)
    pen.table(y)
    pen.box(x, y - 32, x + 50, y, (60, 60, 66), outline=BLACK)
    pen.box(x + 4, y - 28, x + 36, y - 4, (200, 205, 190))
    pen.box(x + 40, y - 26, x + 47, y - 6, (35, 35, 38))
    pen.box(x + 41, y - 24, x + 46, y - 20, (90, 240, 120))
    if unsafe:
        pen.stroke([(x + 12, y - 7), (x + 26, y - 21)], METAL, 3)
        for prong in (-2, 0, 2):
            tine = [(x + 25 + prong, y - 20 + prong), (x + 29 + prong, y - 25 + prong)]
            pen.stroke(tine, METAL, 1)
        pen.oval(x + 20, y - 8, 3, 2, (255, 235, 80))
    else:
        bowl = pen.pick(((240, 240, 245), (70, 120, 190), (200, 80, 60)))
        pen.slice([x + 10, y - 22, x + 30, y - 4], 0, 180, bowl)
        pen.oval(x + 20, y - 13, 9, 2, (220, 160, 70))


def plant(pen: Pen, unsafe: bool) -> None:
    """Draws a table with something to pour water on: a potted plant, or a laptop."""
    pen.indoors()
    y, x = pen.between(60, 66), pen.between(22, 70)
    pen.table(y)
    if unsafe:
        pen.box(x - 14, y - 18, x + 14, y - 2, (40, 40, 46))
        pen.box(x - 12, y - 16, x + 12, y - 4, (120, 190, 250))
        pen.box(x - 17, y - 2, x + 17, y, (150, 150, 158))
        pen.stroke([(x + 17, y - 1), (min(94, x + 26), y + 20)], BLACK)
        return
    pen.shape([(x - 7, y - 10), (x + 7, y - 10), (x + 5, y), (x - 5, y)], (190, 95, 60))
    for lean in (-8, -3, 3, 8):
        pen.stroke([(x, y - 10), (x + lean, y - 25 + abs(lean))], (50, 150, 60), 3)
    if pen.chance(0.4):
        pen.oval(x, y - 27, 4, 4, (240, 80, 130))


def floor(pen: Pen, unsafe: bool) -> None:
    """Draws a door and the floor before it: clean with a rug, or covered in broken glass."""
    pen.indoors()
    pen.box(36, 24, 58, pen.horizon, (150, 100, 60))
    pen.oval(54, 46, 1, 1, (240, 220, 90))
    if not unsafe:
        rug = pen.pick(((180, 70, 70), (70, 100, 160), (90, 140, 90)))
        pen.oval(48, 82, pen.between(22, 34), 8, rug)
        return
    for _ in range(pen.between(6, 9)):
        x, y = pen.between(14, 82), pen.between(pen.horizon + 5, 92)
        shard = [(x - 4, y + 2), (x, y - 5), (x + 4, y + 1)]
        pen.shape(shard, (215, 240, 250), outline=(90, 130, 160))
