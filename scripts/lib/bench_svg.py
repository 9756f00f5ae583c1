"""Bars as SVG: one panel a figure, one bar a server."""

COLOURS = {"natter": "#0b7a5c", "mosquitto": "#7a7f87", "ejabberd": "#b0662e", "prosody": "#5b6fb5"}
WIDTH, LEFT, BAR, GAP, HEAD = 720, 110, 16, 5, 34


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def draw(panels):
    """`panels`: (title, unit, [(server, name, value)]). A panel without a value is left out."""
    parts, top = [], 8
    for title, unit, bars in panels:
        bars = [bar for bar in bars if bar[2] is not None]
        if not bars:
            continue
        most = max(value for _, _, value in bars) or 1
        parts.append(f'<text x="8" y="{top + 16}" font-weight="bold">{escape(title)}</text>')
        y = top + HEAD - 8
        for server, name, value in bars:
            width = max(1, (WIDTH - LEFT - 110) * value / most)
            shown = f"{value:,.0f}" if value >= 100 else f"{value:,.2f}" if value < 10 else f"{value:,.1f}"
            parts.append(f'<text x="{LEFT - 6}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{COLOURS[server]}"/>')
            parts.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + 12}">{shown} {escape(unit)}</text>')
            y += BAR + GAP
        top = y + 8
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" font-family="sans-serif" '
        f'font-size="12" fill="#222">\n<rect width="{WIDTH}" height="{top}" fill="#fff"/>\n{body}\n</svg>\n'
    )
