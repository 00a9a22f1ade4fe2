"""A network's stages as an SVG picture, inputs at the top and ``q`` at the bottom."""

from __future__ import annotations

from html import escape

from iqn_blocks.graph import Graph, Node, trace
from iqn_blocks.network import IQN

COLUMN, ROW = 236, 98  # distance between centres
WIDTH, HEIGHT, JOIN = 216, 66, 26  # of a box; of a join's circle or pill
MARGIN = 16


def svg(net: IQN) -> str:
    """The picture, as the text of an SVG file. The network runs once, on examples.

    >>> import iqn_blocks
    >>> net = iqn_blocks.build({"n_actions": 3, "float_input_dim": 2, "nn": {
    ...     "vis": {"no_image": True}}})
    >>> svg(net).startswith("<svg")
    True
    """
    graph = trace(net)
    rows = _rows(graph)
    x = _columns(graph, rows)
    left = min(x.values())
    place = {
        name: (x[name] - left + WIDTH / 2 + MARGIN, row * ROW + HEIGHT / 2 + MARGIN)
        for name, row in rows.items()
    }
    width = max(at[0] for at in place.values()) + WIDTH / 2 + MARGIN
    height = max(at[1] for at in place.values()) + HEIGHT / 2 + MARGIN
    nodes = {node.name: node for node in graph.nodes}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" font-family="sans-serif" font-size="13" text-anchor="middle">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
        *(_arrow(place, nodes, *edge) for edge in graph.edges),
        *(_box(node, *place[node.name]) for node in graph.nodes),
        "</svg>\n",
    ]
    return "\n".join(lines)


def _rows(graph: Graph) -> dict[str, int]:
    """Each node in the row above the first of its consumers."""
    below = {node.name: 0 for node in graph.nodes}
    for node in reversed(graph.nodes):  # consumers come later in the list
        for source, target in graph.edges:
            if target == node.name:
                below[source] = max(below[source], below[target] + 1)
    last = max(below.values())
    return {name: last - distance for name, distance in below.items()}


def _columns(graph: Graph, rows: dict[str, int]) -> dict[str, float]:
    """Each node over the middle of its consumers, moved aside where boxes would overlap."""
    x: dict[str, float] = {}
    for row in range(max(rows.values()), -1, -1):
        wanted = {}
        for node in graph.nodes:
            if rows[node.name] == row:
                targets = [x[target] for source, target in graph.edges if source == node.name]
                wanted[node.name] = sum(targets) / len(targets) if targets else 0.0
        names = sorted(wanted, key=lambda name: wanted[name])
        spread: dict[str, float] = {}
        for name in names:
            after = [at + COLUMN for at in spread.values()]
            spread[name] = max([wanted[name], *after])
        shift = sum(wanted[name] - spread[name] for name in names) / len(names)
        x |= {name: at + shift for name, at in spread.items()}
    return x


def _half_height(node: Node) -> float:
    return HEIGHT / 2 if node.detail else JOIN / 2


def _arrow(
    place: dict[str, tuple[float, float]], nodes: dict[str, Node], source: str, target: str
) -> str:
    (x1, y1), (x2, y2) = place[source], place[target]
    y1 += _half_height(nodes[source])
    y2 -= _half_height(nodes[target])
    bend = min(ROW / 2, (y2 - y1) / 2)
    path = f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
    return f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#tip)"/>'


def _box(node: Node, x: float, y: float) -> str:
    if not node.detail:
        width = 68 if len(node.kind) > 1 else JOIN
        return _rect(x, y, width, JOIN, JOIN / 2, "#fff3d6") + _text(x, y + 5, node.kind)
    fill = "#e3f0e3" if not node.kind or node.name == "q" else "#e4ecf7"
    title = node.name.removeprefix("encoder.")
    lines = [title, *([node.kind] if node.kind else []), node.detail]
    top = y - 9 * (len(lines) - 1) + 5
    texts = [
        _text(x, top + 18 * i, line, weight="bold" if i == 0 else "normal")
        for i, line in enumerate(lines)
    ]
    return _rect(x, y, WIDTH, HEIGHT, 6, fill) + "".join(texts)


def _rect(x: float, y: float, width: float, height: float, radius: float, fill: str) -> str:
    return (
        f'<rect x="{x - width / 2:.0f}" y="{y - height / 2:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" rx="{radius:.0f}" fill="{fill}" stroke="#555"/>'
    )


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}">{escape(text)}</text>'
