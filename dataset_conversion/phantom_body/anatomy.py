"""The organs of the phantom: where they lie, how they look in a contrast CT, and how they vary between people.

Shapes and HU are our own drawing after common anatomy, not a fit to any scan.
"""

from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.dataset_conversion.phantom_body.canvas import (
    Canvas,
    in_one_piece,
    smooth_max,
    smooth_union,
    without,
)
from nnunet_difftumor.dataset_conversion.phantom_body.vessels import grow_tree

LABELS = {
    "background": 0,
    "liver": 1,
    "liver_tumor": 2,
    "kidney": 3,
    "kidney_tumor": 4,
    "pancreas": 5,
    "pancreas_tumor": 6,
    "spleen": 7,
}
HEIGHT_MM, HALF_WIDTH_MM, HALF_DEPTH_MM = 200.0, 165.0, 112.0


@dataclass(frozen=True)
class Person:
    """What differs between two phantoms.

    Attributes:
        size: factor on all lengths, 0.92 to 1.08.
        fat_mm: mean thickness of the fat under the skin.
        enhancement_hu: HU by tissue, of one moment between the late arterial and the portal venous phase.
        shift_mm: draws the displacement (x, y, z) of an organ.
    """

    size: float
    fat_mm: float
    enhancement_hu: dict[str, float]
    rng: np.random.Generator

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Person":
        portal = rng.uniform(0.35, 1.0)  # 0: late arterial, 1: portal venous
        late_arterial = {"liver": 82, "spleen": 128, "cortex": 195, "medulla": 120, "pancreas": 112, "aorta": 230}
        late_arterial |= {"portal vein": 135, "hepatic vein": 92, "vena cava": 110, "wall": 85}
        portal_venous = {"liver": 112, "spleen": 122, "cortex": 178, "medulla": 162, "pancreas": 96, "aorta": 158}
        portal_venous |= {"portal vein": 172, "hepatic vein": 166, "vena cava": 145, "wall": 80}
        hu = {name: (1 - portal) * late_arterial[name] + portal * portal_venous[name] for name in portal_venous}
        strength = rng.uniform(0.92, 1.08)
        hu = {name: float(value * strength + rng.normal(0, 2)) for name, value in hu.items()}
        return cls(float(rng.uniform(0.92, 1.08)), float(rng.uniform(10, 26)), hu, rng)

    def shift_mm(self, sigma_mm: float) -> np.ndarray:
        return np.clip(self.rng.normal(0, sigma_mm, 3), -2 * sigma_mm, 2 * sigma_mm)

    def stretch(self, *semi_axes_mm: float) -> np.ndarray:
        return np.asarray(semi_axes_mm) * self.rng.uniform(0.92, 1.08, 3)


def draw_abdomen(canvas: Canvas, person: Person) -> None:
    """Paints a healthy abdomen, from the outside to the inside."""
    wall, cavity = _draw_body(canvas, person)
    diaphragm = _draw_chest(canvas, person, cavity)
    _draw_skeleton(canvas, wall)
    belly = np.maximum(cavity, canvas.z - diaphragm + 3)
    _draw_bowel(canvas, person, belly)
    stomach = _draw_stomach(canvas, person, belly)
    kidneys = _draw_kidneys(canvas, person, belly)
    spleen = _draw_spleen(canvas, person, without(without(belly, stomach, gap_mm=3), kidneys, gap_mm=4))
    liver = _draw_liver(canvas, person, without(without(belly, stomach, gap_mm=2), kidneys, gap_mm=4))
    neighbours = np.minimum(np.minimum(liver, kidneys), spleen)
    _draw_pancreas(canvas, person, without(belly, neighbours, gap_mm=3))
    _draw_great_vessels(canvas, person)
    _draw_liver_vessels(canvas, person, liver)
    organs = canvas.labels > 0
    canvas.hu[organs] += 2 * canvas.coarse[organs] + 2 * canvas.fine[organs]


def _draw_body(canvas: Canvas, person: Person) -> tuple[np.ndarray, np.ndarray]:
    """Table, skin, fat, muscle; returns distances to the outside of the muscle and to the cavity inside it."""
    x, y, z = canvas.x, canvas.y, canvas.z
    half_width = HALF_WIDTH_MM + 4 * np.sin(z / 60)
    half_depth = np.where(y < 0, np.float32(HALF_DEPTH_MM), np.float32(0.93 * HALF_DEPTH_MM))
    power = 2.35
    # The shape is a rounded rectangle; the distance to it is taken along the line to the middle.
    level = (np.abs(x / half_width) ** power + np.abs(y / half_depth) ** power) ** (1 / power)
    radius = np.sqrt(x**2 + y**2)
    skin = radius - radius / np.maximum(level, 1e-3) + 5 * np.exp(-((x / 18) ** 2)) * (y > 0) - canvas.coarse[:1]
    sideways = np.abs(x) / (radius + 1)
    fat_mm = person.fat_mm * (0.75 + 0.5 * sideways + 0.1 * canvas.coarse)
    wall = skin + fat_mm
    # The wall is thin in the white line between the two straight muscles in front.
    white_line = 6 * np.exp(-((x / 5) ** 2)) * (y < 0)
    cavity = wall + 11 + 4 * sideways - white_line + 0.8 * canvas.coarse
    back = canvas.column((0, 88), (66, 44))
    cavity = smooth_max(cavity, -back, radius_mm=12)

    table = np.abs(y - 0.93 * HALF_DEPTH_MM - 9 + (x / 90) ** 2 * 2) - 1.2
    canvas.paint(np.maximum(table, np.abs(x) - 175), -300)
    canvas.paint(skin, 10)
    canvas.paint(skin + 2.0, -106 + 4 * canvas.fine)
    # Streaks of fat between the muscles.
    canvas.paint(wall, 56 - 45 * np.exp(-((canvas.fine / 0.12) ** 2)))
    canvas.paint(cavity, -103 + 5 * canvas.fine)
    return wall, cavity


def _draw_skeleton(canvas: Canvas, wall: np.ndarray) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    aside = np.abs(x)
    # Back muscles, and the psoas, which grows downwards.
    for side in (-1, 1):
        canvas.paint(canvas.column((side * 33, 76), (27, 18)) + canvas.fine, 58)
        canvas.paint(canvas.ellipsoid((side * 40, 42, -10), (18, 22, 110), turn_degrees=(0, side * 6, 0)), 58)
    # Vertebrae and discs repeat every 35 mm; bone is dense at its surface and spongy inside.
    height = (z + 9) % 35 - 17.5
    body = canvas.column((0, 45), (22, 17)) + 2.5 * np.cos(2 * np.pi * height / 35) - 1
    canvas.paint(body, 85)
    bone = smooth_max(body, np.abs(height) - 14, radius_mm=4)
    canvas.paint(bone, 170 + 230 * np.exp(-(((bone + 1) / 2) ** 2)) + 30 * canvas.fine)
    below = np.maximum(np.abs(height + 3) - 11, 0)
    arch = np.abs(canvas.column((0, 69), (14, 12))) - 2.5 + 0.6 * below
    spinous = np.sqrt((aside / 3) ** 2 + ((y - 88) / 13) ** 2 + (height + 5) ** 2 / 90) * 3 - 3
    transverse = np.sqrt(((aside - 24) / 15) ** 2 + ((y - 65 - aside / 8) / 4) ** 2 + (height - 1) ** 2 / 40) * 4 - 4
    for part in (arch, spinous, transverse):
        canvas.paint(part, 300 + 60 * canvas.fine)
    canvas.paint(canvas.column((0, 68), (10, 8.5)), 25)
    canvas.paint(canvas.column((0, 68), (5, 4.5)), 45)

    # Ribs wind down from the spine to the front; the lower ones end earlier.
    turn = np.arctan2(aside, y)
    along = z + 48 * np.sin(turn * 0.62) - 6
    number, phase = np.divmod(along, 31)
    end = 1.1 + 0.26 * (number - 1)
    ribs = np.sqrt(((wall + 6.5) / 4.5) ** 2 + ((phase - 15) / 6.5) ** 2) * 5 - 5
    ribs = np.maximum(ribs, np.maximum((turn - end) * 80, (0.32 - turn) * 80))
    ribs = np.maximum(ribs, np.maximum(20 - along, 0) * 5)
    canvas.paint(ribs, 230 + 420 * np.exp(-(((ribs + 1.0) / 1.3) ** 2)))


def _draw_chest(canvas: Canvas, person: Person, cavity: np.ndarray) -> np.ndarray:
    """Bases of the lungs and the heart; returns the height of the diaphragm in mm, (1, y, x)."""
    x, y = canvas.x, canvas.y
    top = person.rng.uniform(184, 194)
    right = top - 0.0055 * (x + 70) ** 2 - 0.0068 * (y + 18) ** 2
    left = top - 10 - 0.0055 * (x - 70) ** 2 - 0.0068 * (y + 8) ** 2
    diaphragm = -smooth_union(-right, -left, radius_mm=30)[None]
    lung = np.maximum(cavity + 1, 0.6 * (diaphragm - canvas.z))
    vessels = np.clip(3.2 * (canvas.fine - 1.6), 0, 1)
    canvas.paint(lung, -860 + 25 * canvas.coarse + 500 * vessels)
    heart = canvas.ellipsoid((28, -42, 212), (62, 46, 44))
    canvas.paint(np.maximum(heart, cavity + 8), -95)
    canvas.paint(np.maximum(heart + 5, cavity + 12), 120)
    mediastinum = np.maximum(canvas.column((2, 16), (34, 44)), cavity)
    canvas.paint(np.maximum(mediastinum, 0.6 * (diaphragm - canvas.z)), -90 + 15 * canvas.fine)
    return diaphragm


def _draw_bowel(canvas: Canvas, person: Person, belly: np.ndarray) -> None:
    rng = person.rng
    # Loops of small bowel: content, wall and the fat between them are levels of one smooth field.
    region = np.maximum(canvas.ellipsoid((10, -38, 18), (92, 48, 62)), belly + 3)
    level = canvas.medium + 0.25 * canvas.fine
    wall = 45 * np.exp(-(((level + 0.45) / 0.3) ** 2))
    loops = -98 + np.clip((level + 0.75) / 0.3, 0, 1) * (128 + wall + 8 * canvas.fine)
    canvas.paint(region, loops)
    ascending = [(-108, 12, -20), (-106, 8, 25), (-96, -20, 50)]
    transverse = [(-96, -20, 50), (-50, -72, 42), (10, -80, 36), (62, -66, 60), (98, -20, 98)]
    descending = [(98, -20, 98), (116, 28, 80), (118, 34, 30), (112, 26, -20)]
    for path in (ascending, transverse, descending):
        points = np.asarray(path, float) + rng.normal(0, 4, (len(path), 3))
        colon = canvas.tube(points, rng.uniform(13, 20, len(points)))
        # Pouches between the folds of the colon.
        colon = np.maximum(colon + 2.5 * canvas.fine, belly + 2)
        canvas.paint(colon, 55)
        content = np.where(canvas.fine - 0.045 * (canvas.y + 40) > 0.6, -850, 20 - 60 * np.abs(canvas.coarse))
        canvas.paint(colon + 3, content)


def _draw_stomach(canvas: Canvas, person: Person, belly: np.ndarray) -> np.ndarray:
    centre = np.array((58, -42, 138)) + person.shift_mm(5)
    body = canvas.ellipsoid(centre, person.stretch(38, 36, 56), turn_degrees=(-15, 25, 0))
    bend = [np.add(centre, (-6, -12, -30)), np.add(centre, (-42, -18, -52))]
    outlet = canvas.tube([*bend, (-28, -28, 82)], [24, 18, 11])
    stomach = np.maximum(smooth_union(body, outlet, radius_mm=20) + 1.5 * canvas.coarse, belly + 1)
    canvas.paint(stomach, person.enhancement_hu["wall"])
    level = centre[1] + person.rng.uniform(-22, -6)  # gas lies in front, above the level of the fluid
    canvas.paint(stomach + 4, 22 + 10 * canvas.coarse)
    canvas.paint(np.maximum(stomach + 4, canvas.y - float(level)), -950)
    return stomach


def _draw_kidneys(canvas: Canvas, person: Person, belly: np.ndarray) -> np.ndarray:
    hu, both = person.enhancement_hu, None
    for side, height in ((-1, 72), (1, 86)):
        centre = np.array((side * 64, 46, height)) + person.shift_mm(4)
        turn = (12, -side * 12, side * 35)
        kidney = canvas.ellipsoid(centre, person.stretch(28, 25, 53), turn_degrees=turn) + 1.2 * canvas.coarse
        hilum = np.add(centre, (-side * 24, -12, 0))
        sinus = canvas.ellipsoid(hilum, (17, 13, 24), turn_degrees=turn) - 1.5 * canvas.fine
        canvas.paint(np.maximum(kidney - 9, belly + 4), -106)
        organ = without(kidney, sinus)
        canvas.paint(organ, hu["cortex"], label=LABELS["kidney"])
        # Pyramids of the medulla, which fade into the cortex in the portal venous phase.
        medulla = np.maximum(organ + 7, 3 - 5 * np.abs(canvas.fine + 0.3))
        canvas.paint(np.maximum(medulla, organ + 6), hu["medulla"], label=LABELS["kidney"])
        vein_end, artery_end = np.array((-20, 20, height)), np.array((8, 20, height + 8))
        for name, end, radius_mm in (("vena cava", vein_end, 4.5), ("aorta", artery_end, 2.8)):
            start = np.add(hilum, (0, 0, 4.5 - 2 * radius_mm))
            vessel = canvas.tube([start, np.add((end + hilum) / 2, (0, -5, 0)), end], [radius_mm] * 3)
            canvas.paint(without(vessel, organ), hu[name])
        both = kidney if both is None else np.minimum(both, kidney)
    return both


def _draw_spleen(canvas: Canvas, person: Person, room: np.ndarray) -> np.ndarray:
    centre = np.array((98, 40, 138)) + person.shift_mm(4)
    spleen = canvas.ellipsoid(centre, person.stretch(38, 56, 56), turn_degrees=(20, 8, 18)) + 1.5 * canvas.coarse
    dent = canvas.ellipsoid(np.add(centre, (-44, -18, 0)), (30, 40, 60))
    spleen = in_one_piece(np.maximum(smooth_max(spleen, -dent, radius_mm=8), room + 1))
    mottle = 14 * canvas.fine if person.enhancement_hu["aorta"] > 200 else 0
    canvas.paint(spleen, person.enhancement_hu["spleen"] + mottle, label=LABELS["spleen"])
    return spleen


def _draw_liver(canvas: Canvas, person: Person, room: np.ndarray) -> np.ndarray:
    shift = person.shift_mm(4)
    right = canvas.ellipsoid(np.array((-78, -2, 116)) + shift, person.stretch(72, 88, 82), turn_degrees=(0, -12, 0))
    left = canvas.ellipsoid(np.array((-2, -52, 140)) + shift, person.stretch(70, 38, 42), turn_degrees=(0, 12, 10))
    liver = smooth_union(right, left, radius_mm=25) + 2.5 * canvas.coarse
    gallbladder = canvas.ellipsoid(
        np.array((-52, -44, 72)) + shift, person.stretch(15, 17, 30), turn_degrees=(25, 15, 0)
    )
    # The hilum with its fat, the fissure of the ligament, and the bed of the vena cava cut into the underside.
    hilum = canvas.tube([(-14, -12, 84), (-34, -12, 106), (-44, -14, 114)], [20, 12, 6])
    fissure = canvas.tube([(-22, -100, 96), (-22, -48, 118), (-26, -18, 116)], [7, 4, 3])
    spine = canvas.column((8, 40), (44, 52))
    # Behind and beside the right kidney there is fat, not liver.
    kidney_bed = canvas.ellipsoid((-46, 64, 78), (46, 40, 66), turn_degrees=(10, 12, -30))
    for part in (hilum, fissure, spine, kidney_bed):
        liver = smooth_max(liver, -part, radius_mm=8)
    liver = in_one_piece(np.maximum(without(liver, gallbladder, gap_mm=1), room + 1))
    canvas.paint(np.maximum(gallbladder, room + 2), person.enhancement_hu["wall"])
    canvas.paint(np.maximum(gallbladder + 1.3, room + 3.3), 9)
    canvas.paint(liver, person.enhancement_hu["liver"], label=LABELS["liver"])
    return liver


def _draw_pancreas(canvas: Canvas, person: Person, room: np.ndarray) -> None:
    points = np.array(
        [(-34, -8, 62), (-30, -12, 80), (-8, -26, 88), (18, -28, 96), (46, -8, 106), (76, 18, 116)], float
    )
    points += person.shift_mm(3) + person.rng.normal(0, 2.5, points.shape)
    radii = np.array([14, 17, 11, 12.5, 13, 11]) * person.rng.uniform(0.9, 1.1)
    # Lobules with fat between them.
    pancreas = in_one_piece(np.maximum(canvas.tube(points, radii) + 1.6 * canvas.fine + canvas.coarse, room))
    canvas.paint(pancreas, person.enhancement_hu["pancreas"], label=LABELS["pancreas"])
    behind = [*np.add(points[2:], (0, 12, 0)), (96, 28, 126)]
    splenic_vein = without(np.maximum(canvas.tube(behind, [4.5, 4, 3.8, 3.5, 3]), room), pancreas)
    canvas.paint(splenic_vein, person.enhancement_hu["portal vein"])


def _draw_great_vessels(canvas: Canvas, person: Person) -> None:
    hu = person.enhancement_hu
    bend = person.rng.normal(0, 2, 4)
    aorta = [(10, 14, -10), (8 + bend[0], 16, 60), (8 + bend[1], 18, 130), (12, 24, 210)]
    canvas.paint(canvas.tube(aorta, [8.5, 9.5, 10.5, 12]), hu["aorta"])
    canvas.paint(canvas.tube([(8, 14, 104), (4, -4, 112), (-14, -10, 114)], [3.5, 3.2, 2.2]), hu["aorta"])
    canvas.paint(canvas.tube([(8, 12, 96), (2, -12, 84), (2, -20, 20)], [3.8, 3.5, 3]), hu["aorta"])
    cava = [(-20, 18, -10), (-22 + bend[2], 18, 60), (-26, 14, 130), (-22, 6, 178), (-16, 2, 210)]
    cava_distance = canvas.tube(cava, [10, 10.5, 12, 13, 13])
    canvas.paint(cava_distance + 1.2 * canvas.coarse, hu["vena cava"])
    portal = [(-8, -20, 10), (-8, -8, 84), (-26, -14, 100), (-42, -14, 114)]
    canvas.paint(canvas.tube(portal, [4.5, 6, 7, 6.5]), hu["portal vein"])


def _draw_liver_vessels(canvas: Canvas, person: Person, liver: np.ndarray) -> None:
    rng = person.rng
    inside = np.argwhere(liver < -5)
    inside_mm = np.stack([axis.ravel()[inside[:, 2 - i]] for i, axis in enumerate((canvas.x, canvas.y, canvas.z))], 1)
    within = canvas.alpha(liver)
    for name, root, radius_mm in (("portal vein", (-42, -14, 114), 6.0), ("hepatic vein", (-22, 4, 172), 6.5)):
        targets = inside_mm[rng.choice(len(inside_mm), 110, replace=False)].astype(float)
        tree = np.zeros_like(canvas.hu)
        for start, end, radius in grow_tree(np.array(root, float), targets, root_radius_mm=radius_mm, rng=rng):
            box, piece = canvas.tube_piece(start, end, radius, radius, margin_mm=canvas.edge_mm)
            np.maximum(tree[box], canvas.alpha(piece), out=tree[box])
        canvas.hu += tree * within * (person.enhancement_hu[name] - canvas.hu)
