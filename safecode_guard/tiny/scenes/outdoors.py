"""Paired scenes in the open: each function draws the safe or the unsafe variant."""

from safecode_guard.tiny.scenes.pen import BLACK, SIZE, WHITE, WINDOW, Pen

SAND = (200, 180, 140)
RAIL = (180, 140, 70)
DEEP = (60, 90, 130)


def path(pen: Pen, unsafe: bool) -> None:
    """Draws a walker on a path: between trees, or at the edge of a cliff."""
    pen.outdoors()
    if unsafe:
        x = _cliff(pen)
        pen.shape([(x - 3, pen.horizon), (x + 3, pen.horizon), (x + 9, SIZE), (x - 9, SIZE)], SAND)
    else:
        x = pen.between(30, 66)
        pen.shape(
            [(x - 3, pen.horizon), (x + 3, pen.horizon), (x + 14, SIZE), (x - 14, SIZE)], SAND
        )
        for _ in range(pen.between(1, 3)):
            side = pen.pick((pen.between(6, 22), pen.between(76, 90)))
            pen.tree(side, pen.horizon + pen.between(2, 20))
    pen.person(x, pen.between(74, 90), pen.between(28, 36))


def _cliff(pen: Pen) -> float:
    """Draws a drop on one side and returns where a path beside it runs."""
    edge, top = pen.between(44, 58), pen.horizon
    lean = pen.between(-8, 12)
    mirrored = pen.chance(0.5)

    def across(x: float) -> float:
        return SIZE - x if mirrored else x

    drop = [(edge, top), (SIZE, top), (SIZE, SIZE), (edge + lean, SIZE)]
    rim = [(edge, top), (edge + 7, top), (edge + 14, SIZE), (edge, SIZE)]
    pen.shape([(across(x), y) for x, y in drop], DEEP)
    pen.shape([(across(x), y) for x, y in rim], (120, 85, 60))
    return across(edge - 12)


def water(pen: Pen, unsafe: bool) -> None:
    """Draws water to swim in: a calm pool, or a stormy sea."""
    if unsafe:
        pen.outdoors((30, 70, 110))
        for row in range(4):
            y, shift = pen.horizon + 4 + row * 11, pen.between(0, 20)
            for x in range(shift - 20, SIZE, 22):
                crest = y - pen.between(3, 8)
                pen.shape([(x, y + 10), (x + 9, crest), (x + 20, y + 10)], (40, 90, 140))
                pen.stroke([(x + 5, y), (x + 9, y - 5), (x + 13, y)], (235, 240, 245))
    else:
        pen.outdoors((205, 190, 160))
        top = pen.horizon + pen.between(8, 16)
        pen.box(8, top, 88, 90, (90, 200, 225), outline=(245, 245, 245))
        for y in (top + 10, top + 20, top + 30):
            pen.stroke([(14, y), (82, y)], (150, 225, 240), 1)
        x = pen.between(14, 80)
        for rail in (x, x + 5):
            pen.stroke([(rail, top - 8), (rail, top + 6)], (150, 150, 150), 1)
    if pen.chance(0.6):
        pen.person(pen.between(14, 82), pen.between(pen.horizon + 2, pen.horizon + 12), 24)


def ladder(pen: Pen, unsafe: bool) -> None:
    """Draws a ladder: against a house wall, or touching a power line."""
    pen.outdoors()
    x = pen.between(26, 60)
    if unsafe:
        _power_line(pen, x)
    else:
        pen.box(x - 20, 22, x + 36, 84, pen.shade((190, 130, 110)))
        pen.box(x - 14, 34, x - 2, 48, WINDOW)
    top = 20 if unsafe else 26
    pen.stroke([(x, top), (x - 5, 86)], RAIL)
    pen.stroke([(x + 9, top), (x + 6, 86)], RAIL)
    for rung in range(7):
        y = top + 5 + rung * 8
        pen.stroke([(x - 4, y), (x + 9, y)], RAIL)
    pen.person(x + pen.pick((-16, 24)), 90, pen.between(26, 32))


def _power_line(pen: Pen, x: int) -> None:
    """Draws two poles, two wires and sometimes a spark beside x."""
    for pole in (8, 88):
        pen.box(pole - 2, 14, pole + 2, 84, (90, 65, 45))
        pen.box(pole - 7, 16, pole + 7, 18, (90, 65, 45))
    pen.stroke([(0, 19), (SIZE, 19 + pen.between(-2, 2))], BLACK)
    pen.stroke([(0, 26), (SIZE, 26)], BLACK, 1)
    if pen.chance(0.6):
        spark = [(x + 12, 8), (x + 8, 18), (x + 12, 18), (x + 9, 27)]
        pen.shape(spark, (255, 230, 50))


def fire(pen: Pen, unsafe: bool) -> None:
    """Draws a fire: in a stone pit outside, or next to curtains in a room."""
    if unsafe:
        pen.indoors()
        x, cloth = pen.between(18, 70), pen.pick(((180, 40, 60), (60, 70, 160), (120, 60, 130)))
        for fold in range(x - 8, x + 12, 5):
            pen.box(fold, 4, fold + 3, pen.horizon, cloth)
            pen.box(fold + 3, 4, fold + 5, pen.horizon, pen.shade(cloth, 25))
        pen.flame(x + pen.pick((-8, 16)), pen.horizon + 6, pen.between(18, 26))
        return
    pen.outdoors()
    x, y = pen.between(28, 66), pen.between(74, 86)
    pen.flame(x, y, pen.between(14, 22))
    for stone in range(7):
        pen.oval(x - 14 + stone * 5, y + (3 if stone % 6 else 0), 3, 3, (130, 130, 135))
    if pen.chance(0.6):
        pen.person(x + pen.pick((-22, 22)), y, 28)
    if pen.chance(0.5):
        pen.shape([(4, 60), (14, 40), (24, 60)], (200, 120, 60))
    else:
        pen.tree(88, 60)


def road(pen: Pen, unsafe: bool) -> None:
    """Draws a crossing: with a green light, or with a red light and a car."""
    pen.outdoors((95, 95, 100))
    top = pen.horizon + 8
    for stripe in range(10, 94, 14):
        pen.box(stripe, top + 10, stripe + 7, top + 26, (235, 235, 235))
    x = pen.pick((10, 86))
    pen.box(x - 1, 22, x + 1, top, (60, 60, 60))
    pen.box(x - 5, 14, x + 5, 34, (30, 30, 30))
    pen.oval(x, 19, 3, 3, (255, 40, 30) if unsafe else (70, 20, 20))
    pen.oval(x, 29, 3, 3, (20, 60, 20) if unsafe else (60, 240, 80))
    if unsafe:
        _car(pen, top + 16)
    elif pen.chance(0.15):
        _car(pen, top - 4)
    pen.person(pen.between(30, 66), 94, 28)


def _car(pen: Pen, y: float) -> None:
    """Draws a car whose body begins at y."""
    x, paint = pen.between(28, 66), pen.pick(((200, 40, 40), (40, 70, 180), (230, 230, 235)))
    pen.box(x - 15, y, x + 15, y + 9, paint)
    pen.shape([(x - 9, y), (x - 5, y - 7), (x + 6, y - 7), (x + 10, y)], paint)
    for wheel in (x - 8, x + 8):
        pen.oval(wheel, y + 10, 4, 4, BLACK)


def ice(pen: Pen, unsafe: bool) -> None:
    """Draws ice to skate on: a rink with a barrier, or a lake with thin, cracked ice."""
    pen.outdoors((225, 235, 245) if unsafe else (215, 220, 225))
    if unsafe:
        pen.oval(48, 74, 42, 20, (190, 220, 240))
        for _ in range(pen.between(2, 3)):
            crack = [(pen.between(24, 70), pen.between(64, 84))]
            for _ in range(4):
                x, y = crack[-1]
                crack.append((x + pen.between(-9, 9), y + pen.between(-6, 7)))
            pen.stroke(crack, (40, 70, 110))
        pen.oval(pen.between(30, 64), pen.between(66, 80), 8, 4, (25, 55, 95))
    else:
        barrier = pen.horizon + 8
        pen.oval(48, 74, 42, 20, (200, 228, 245), outline=(220, 40, 40))
        pen.stroke([(8, 70), (88, 70)], (220, 40, 40))
        pen.box(2, barrier - 4, 94, barrier + 2, (245, 245, 250), outline=(60, 90, 170))
    pen.person(pen.between(22, 74), pen.between(72, 84), 28)


def animal(pen: Pen, unsafe: bool) -> None:
    """Draws an animal on the grass: a small dog on a lead, or a wild bear."""
    pen.outdoors()
    x, y = pen.between(34, 62), pen.between(74, 86)
    if unsafe:
        _bear(pen, x, y)
    else:
        _dog(pen, x, y)
    pen.person(pen.pick((12, 86)), 90, 30)
    if pen.chance(0.5):
        pen.tree(pen.between(6, 90), pen.horizon + 4)


def _bear(pen: Pen, x: float, y: float) -> None:
    fur = pen.pick(((90, 60, 35), (60, 42, 28)))
    pen.oval(x, y - 12, 17, 12, fur)
    pen.oval(x + 15, y - 21, 8, 8, fur)
    for ear in (x + 11, x + 19):
        pen.oval(ear, y - 28, 3, 3, fur)
    for leg in (x - 13, x + 7):
        pen.box(leg, y - 4, leg + 6, y + 5, fur)
    pen.stroke([(x + 14, y - 17), (x + 22, y - 17)], WHITE)


def _dog(pen: Pen, x: float, y: float) -> None:
    fur = pen.pick(((215, 170, 100), (235, 225, 205), (170, 170, 175)))
    pen.oval(x, y - 6, 10, 5, fur)
    pen.oval(x + 11, y - 12, 5, 5, fur)
    pen.stroke([(x - 9, y - 8), (x - 15, y - 15)], fur)
    for leg in (x - 7, x + 4):
        pen.box(leg, y - 3, leg + 3, y + 4, fur)
    pen.stroke([(x + 7, y - 8), (x + 11, y - 7)], (220, 30, 30))
