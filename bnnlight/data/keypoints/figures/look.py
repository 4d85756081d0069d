"""What a figure looks like: skin, hair and clothes, at random."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from bnnlight.data.keypoints.figures.brush import Colour, blend, shade
from bnnlight.data.keypoints.figures.dice import Dice

SKINS = ((250, 222, 200), (240, 200, 170), (224, 172, 130), (198, 140, 98), (150, 100, 66), (104, 68, 48))
HAIRS = ((30, 24, 22), (62, 42, 30), (110, 74, 44), (170, 120, 60), (222, 188, 116), (150, 62, 30), (190, 188, 184))


def skin_colour(dice: Dice) -> Colour:
    """A random tone between the lightest and the darkest."""
    tone = dice.uniform(0, len(SKINS) - 1.001)
    return blend(SKINS[int(tone)], SKINS[int(tone) + 1], tone % 1)


def cloth_colour(dice: Dice) -> Colour:
    """A random colour of cloth: bright, dull, grey, nearly black or nearly white."""
    kind = dice.share()
    if kind < 0.16:
        return (dice.uniform(28, 60), dice.uniform(28, 60), dice.uniform(32, 70))
    if kind < 0.34:
        return (dice.uniform(190, 240),) * 3
    if kind < 0.48:
        return shade((60, 84, 130), dice.uniform(0.6, 1.5))
    hue, saturation, value = dice.share(), dice.uniform(0.25, 0.85), dice.uniform(0.35, 0.95)
    return tuple(255 * part for part in colorsys.hsv_to_rgb(hue, saturation, value))


@dataclass(frozen=True)
class Look:
    """Colours and clothes.

    Attributes:
        skin, hair, top, bottom, shoes, trim: colours; the trim is that of patterns, prints and hats.
        hand: colour of the hands: skin or gloves.
        sleeve: how much of the arm is covered: up to 1 the share of the upper arm, then 1 + that of the forearm.
        leg: the same of the leg.
        sock: the share of the shank, from the ankle, that a white sock covers.
        skirt: whether one is worn; then ``leg`` is its length.
        pattern: of the top: "plain", "hoops", "stripes", "print" or "buttons".
        tucked: whether the top ends at the waist.
        backpack: whether one is worn.
        hair_style: "bald", "short", "long" or "tail".
        headwear: "none", "cap" or "wool".
        beard, glasses: whether there is one.
    """

    skin: Colour
    hair: Colour
    top: Colour
    bottom: Colour
    shoes: Colour
    trim: Colour
    hand: Colour
    sleeve: float
    leg: float
    sock: float
    skirt: bool
    pattern: str
    tucked: bool
    backpack: bool
    hair_style: str
    headwear: str
    beard: bool
    glasses: bool

    @staticmethod
    def draw(dice: Dice) -> Look:
        """A random look."""
        skin, top = skin_colour(dice), cloth_colour(dice)
        skirt = dice.chance(0.08)
        leg = dice.uniform(0.45, 1.3) if skirt else dice.choice((2, 2, 1.6, 1.1, 0.9, 0.7, 0.45))
        hair_style = dice.choice(("short", "short", "short", "long", "long", "tail", "bald"))
        return Look(
            skin=skin,
            hair=dice.choice(HAIRS),
            top=top,
            # some wear overalls
            bottom=shade(top, 0.9) if dice.chance(0.1) else cloth_colour(dice),
            shoes=cloth_colour(dice),
            trim=cloth_colour(dice),
            hand=cloth_colour(dice) if dice.chance(0.08) else skin,
            sleeve=dice.choice((2, 2, 1.6, 0.9, 0.6, 0.6, 0.5, 0.0)),
            leg=leg,
            sock=dice.uniform(0.15, 0.6) if dice.chance(0.5) else 0.0,
            skirt=skirt,
            pattern=dice.choice(("plain", "plain", "hoops", "stripes", "print", "print", "buttons", "buttons")),
            tucked=dice.chance(0.4),
            backpack=dice.chance(0.06),
            hair_style=hair_style,
            headwear=dice.choice(("none", "none", "none", "none", "cap", "wool")),
            beard=hair_style in ("short", "bald") and dice.chance(0.3),
            glasses=dice.chance(0.15),
        )
