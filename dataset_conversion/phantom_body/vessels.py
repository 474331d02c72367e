"""Vessel trees of the liver: grown towards random points, with radii after Murray's law."""

import numpy as np

MURRAY_EXPONENT = 3.0
STEP_MM, BEND_MM = 6.0, 0.9


def grow_tree(
    root: np.ndarray, targets: np.ndarray, *, root_radius_mm: float, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Connects every target with the tree, near ones first, each where the way along the tree to the root is short.

    Args:
        root: (3,) mm, where the vessel enters.
        targets: (n, 3) mm, ends of the finest branches.
        root_radius_mm: radius of the stem. A branch that feeds m of n ends has the radius
            root_radius_mm * (m / n) ** (1 / 3).
        rng: for the winding of the branches.

    Returns:
        Straight pieces (start, end, radius_mm).
    """
    nodes, parents, way_mm, feeds = [np.asarray(root, float)], [-1], [0.0], [0]
    for target in targets[np.argsort(np.linalg.norm(targets - root, axis=1))]:
        gaps = np.linalg.norm(np.asarray(nodes) - target, axis=1)
        joint = int(np.argmin(gaps + 0.35 * np.asarray(way_mm)))
        steps = max(int(gaps[joint] / STEP_MM), 1)
        start, parent = nodes[joint], joint
        for step in range(1, steps + 1):
            on_the_way = start + (target - start) * step / steps + rng.normal(0, BEND_MM, 3)
            nodes.append(on_the_way if step < steps else target)
            way_mm.append(way_mm[parent] + float(np.linalg.norm(nodes[-1] - nodes[parent])))
            parents.append(parent)
            feeds.append(0)
            parent = len(nodes) - 1
        while parent >= 0:
            feeds[parent] += 1
            parent = parents[parent]
    return [
        (nodes[parent], nodes[child], root_radius_mm * (feeds[child] / len(targets)) ** (1 / MURRAY_EXPONENT))
        for child, parent in enumerate(parents)
        if parent >= 0
    ]
