"""Draw the flowcharts of the pages (a small part of mermaid) as SVG when the site is built: no JavaScript, no network.

What is understood: `flowchart LR`, nodes `a[text]`, `a["text"]`, `a[(text)]`, `a{{text}}`, chains of `-->`,
`-- text -->`, `<-->`, `<-- text -->`, `-.->` and `-. text .->`. Anything else raises `ValueError`.
"""

import html
import re
from dataclasses import dataclass, field
from itertools import pairwise

CHARACTER, LINE, GAP, ROW = 7.7, 18.0, 38.0, 22.0
NODE = re.compile(r'\s*(\w+)(?:\[\("?(?P<store>[^"\)]*)"?\)\]|\{\{"?(?P<six>[^"}]*)"?\}\}|\["?(?P<box>[^"\]]*)"?\])?')
ARROW = re.compile(r'\s*(?P<both><)?(?:-\.\s*(?P<dots>[^.>]*?)\s*\.?->|--(?:\s+"?(?P<text>[^">]+?)"?\s+--)?>)')


@dataclass
class Node:
    """A box, or a bend of an edge that passes a column."""

    text: str = ""
    shape: str = "box"
    layer: int = 0
    y: float = 0.0
    x: float = 0.0
    lines: list[str] = field(default_factory=list)

    @property
    def width(self) -> float:
        """Width of the box, in pixels; 0 of a bend."""
        return max(map(len, self.lines)) * CHARACTER + (36 if self.shape == "six" else 24) if self.lines else 0.0

    @property
    def height(self) -> float:
        """Height of the box, in pixels."""
        return len(self.lines) * LINE + 18 if self.lines else 6.0


@dataclass
class Edge:
    """An arrow from one node to another, through bends."""

    source: str
    target: str
    text: str = ""
    dotted: bool = False
    both: bool = False
    path: list[str] = field(default_factory=list)


def draw(text: str) -> str:
    """Return the SVG of a flowchart.

    Args:
        text: Lines in mermaid's language, the first of which is `flowchart LR`.

    Returns:
        An `<svg>` element whose colours are those of the page.

    Raises:
        ValueError: If a line is not understood.
    """
    nodes, edges = parse(text)
    layers = arrange(nodes, edges)
    place(nodes, edges, layers)
    return to_svg(nodes, edges)


def parse(text: str) -> tuple[dict[str, Node], list[Edge]]:
    """Return nodes by name, and edges."""
    first, *lines = [line for line in text.strip().splitlines() if line.strip()]
    if first.strip() != "flowchart LR":
        raise ValueError(f"a diagram begins with `flowchart LR`, not `{first.strip()}`.")
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for line in lines:
        place, last, arrow = 0, "", None
        while place < len(line.rstrip()):
            found = NODE.match(line, place)
            if found is None:
                raise ValueError(f"no node where one is expected in `{line.strip()}`, at `{line[place:]}`.")
            name, place = found[1], found.end()
            node = nodes.setdefault(name, Node(name))
            shape = next((kind for kind in ("store", "six", "box") if found[kind] is not None), None)
            if shape:
                node.text, node.shape = found[shape], shape
            if arrow is not None:
                label = arrow["text"] or arrow["dots"] or ""
                edges.append(Edge(last, name, label, arrow["dots"] is not None, arrow["both"] is not None))
            last, arrow = name, ARROW.match(line, place)
            if arrow is None and line[place:].strip():
                raise ValueError(f"no arrow where one is expected in `{line.strip()}`, at `{line[place:]}`.")
            place = arrow.end() if arrow else place
    for node in nodes.values():
        node.lines = wrap(node.text)
    return nodes, edges


def wrap(text: str, width: int = 22) -> list[str]:
    """Break a text into lines of about a width."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def arrange(nodes: dict[str, Node], edges: list[Edge]) -> list[list[str]]:
    """Give each node a column and each column an order, with bends where an edge passes a column."""
    solid = {edge.target for edge in edges if not edge.dotted}
    binding = [edge for edge in edges if not edge.dotted or edge.target not in solid]
    for _ in nodes:
        for edge in binding:
            nodes[edge.target].layer = max(nodes[edge.target].layer, nodes[edge.source].layer + 1)
    for edge in edges:
        first, last = nodes[edge.source].layer, nodes[edge.target].layer
        bends = [f"{edge.source}>{edge.target}>{layer}" for layer in range(first + 1, last)]
        nodes.update({bend: Node(layer=first + 1 + number) for number, bend in enumerate(bends)})
        edge.path = [edge.source, *bends, edge.target]
    layers: list[list[str]] = [[] for _ in range(1 + max(node.layer for node in nodes.values()))]
    for name, node in nodes.items():
        layers[node.layer].append(name)
    near = neighbours(edges)
    for sweep in range(8):
        rank = {name: place for layer in layers for place, name in enumerate(layer)}
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            layer.sort(key=lambda name: mean([rank[other] for other in near.get(name, [])], rank[name]))
            rank.update({name: place for place, name in enumerate(layer)})
    return layers


def neighbours(edges: list[Edge]) -> dict[str, list[str]]:
    """Return with which names each name is joined."""
    near: dict[str, list[str]] = {}
    for edge in edges:
        for one, other in pairwise(edge.path):
            near.setdefault(one, []).append(other)
            near.setdefault(other, []).append(one)
    return near


def mean(values: list[float], default: float) -> float:
    """Return the mean, or what is given where there is none."""
    return sum(values) / len(values) if values else default


def place(nodes: dict[str, Node], edges: list[Edge], layers: list[list[str]]) -> None:
    """Give each node its place: columns side by side, rows near to what they are joined with."""
    left, near = 0.0, neighbours(edges)
    beside = {nodes[e.source].layer for e in edges if e.text and nodes[e.source].layer == nodes[e.target].layer}
    for number, layer in enumerate(layers):
        widest = max(nodes[name].width for name in layer)
        labels = [len(edge.text) for edge in edges if edge.text and nodes[edge.source].layer == number]
        for name in layer:
            nodes[name].x = left + widest / 2
        left += widest + GAP + (max(labels) * CHARACTER if labels else 0)
        spread(nodes, layer, number in beside)
    for _ in range(12):
        for number, layer in enumerate(layers):
            for name in layer:
                nodes[name].y = mean([nodes[other].y for other in near.get(name, [])], nodes[name].y)
            spread(nodes, layer, number in beside)


def spread(nodes: dict[str, Node], layer: list[str], labelled: bool) -> None:
    """Push what overlaps in a column apart, about the same middle; farther where a text stands between."""
    wanted = [nodes[name].y for name in layer]
    for one, other in pairwise(layer):
        least = nodes[one].y + (nodes[one].height + nodes[other].height) / 2 + (2 * ROW if labelled else ROW)
        nodes[other].y = max(nodes[other].y, least)
    shift = (sum(nodes[name].y for name in layer) - sum(wanted)) / len(layer)
    for name in layer:
        nodes[name].y -= shift


def to_svg(nodes: dict[str, Node], edges: list[Edge]) -> str:
    """Write the picture."""
    boxes = [node for node in nodes.values() if node.lines]
    left, right = min(n.x - n.width / 2 for n in boxes) - 4, max(n.x + n.width / 2 for n in boxes) + 4
    top = min(n.y - n.height / 2 for n in nodes.values()) - 12
    back = any(nodes[edge.source].layer > nodes[edge.target].layer for edge in edges)
    bottom = max(n.y + n.height / 2 for n in nodes.values()) + (40 if back else 12)
    parts = [path_of(nodes, edge) for edge in edges] + [box_of(node) for node in boxes]
    name = html.escape("; ".join(f"{nodes[e.source].text} to {nodes[e.target].text}" for e in edges), quote=True)
    size = f'width="{right - left:.0f}" height="{bottom - top:.0f}"'
    view = f'viewBox="{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}"'
    return f'<svg class="flow" role="img" aria-label="{name}" {size} {view}>{"".join(parts)}</svg>'


def box_of(node: Node) -> str:
    """Draw a node."""
    x, y, w, h = node.x - node.width / 2, node.y - node.height / 2, node.width, node.height
    if node.shape == "six":
        points = [(x, node.y), (x + 12, y), (x + w - 12, y), (x + w, node.y), (x + w - 12, y + h), (x + 12, y + h)]
        shape = f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'
    else:
        round_ = h / 2 if node.shape == "store" else 5
        shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{round_:.0f}"/>'
    first = node.y - (len(node.lines) - 1) * LINE / 2 + 5
    lines = "".join(
        f'<text x="{node.x:.1f}" y="{first + number * LINE:.1f}">{html.escape(line)}</text>'
        for number, line in enumerate(node.lines)
    )
    return shape + lines


def path_of(nodes: dict[str, Node], edge: Edge) -> str:
    """Draw an arrow, with its heads and its text."""
    line = [nodes[name] for name in edge.path]
    start, end = line[0], line[-1]
    turn = (0.0, 0.0)
    if start.layer > end.layer:  # back, below all others
        low = max(node.y + node.height / 2 for node in nodes.values()) + 18
        points = [(start.x, start.y + start.height / 2), (end.x, end.y + end.height / 2 + 7)]
        curve = f"M{start.x:.1f} {points[0][1]:.1f}V{low:.1f}H{end.x:.1f}V{points[1][1]:.1f}"
        head = f"M{end.x - 4:.1f} {points[1][1]:.1f}h8l-4 -7z"
        turn = (0.0, low - (points[0][1] + points[1][1]) / 2 + 17)
    elif start.layer == end.layer:  # straight down or up
        sign = 1 if end.y > start.y else -1
        points = [(start.x, start.y + sign * start.height / 2), (end.x, end.y - sign * end.height / 2 - sign * 7)]
        curve = f"M{points[0][0]:.1f} {points[0][1]:.1f}L{points[1][0]:.1f} {points[1][1]:.1f}"
        head = f"M{end.x - 4:.1f} {points[1][1]:.1f}h8l-4 {7 * sign}z"
        turn = (len(edge.text) * CHARACTER / 2 + 6, 7)
    else:
        points = [(start.x + start.width / 2 + (7 if edge.both else 0), start.y)]
        points += [(bend.x, bend.y) for bend in line[1:-1]]
        points += [(end.x - end.width / 2 - 7, end.y)]
        curve = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for (a, b), (c, d) in pairwise(points):
            curve += f"C{(a + c) / 2:.1f} {b:.1f} {(a + c) / 2:.1f} {d:.1f} {c:.1f} {d:.1f}"
        head = f"M{points[-1][0]:.1f} {end.y - 4:.1f}v8l7 -4z"
        if edge.both:
            head += f"M{points[0][0]:.1f} {start.y - 4:.1f}v8l-7 -4z"
    style = ' class="dotted"' if edge.dotted else ""
    (a, b), (c, d) = points[len(points) // 2 - 1], points[len(points) // 2]
    x, y = (a + c) / 2 + turn[0], (b + d) / 2 - 3 + turn[1]
    label = f'<text class="label" x="{x:.1f}" y="{y:.1f}">{html.escape(edge.text)}</text>'
    return f'<path{style} d="{curve}"/><path class="head" d="{head}"/>{label if edge.text else ""}'
