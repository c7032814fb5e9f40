"""One HTML file that needs nothing else: charts, tables and clips of an explanation.

Names of classes and files come from users: they reach the page as JSON and the document as text,
and the page's policy lets no script run but its own two.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import distribution
from importlib.resources import files

from plotly.offline import get_plotlyjs

from dsts_ray.explain.drawing import Explanation

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; \
style-src 'unsafe-inline'; script-src {hashes}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{setup}</p>
<details><summary>Metrics</summary><div id="metrics"></div></details>
<nav aria-label="Sections"><ul></ul></nav>
</header>
<main></main>
<noscript>The figures are drawn with JavaScript; explanation.json has their values.</noscript>
<footer><details><summary>Charts: plotly.js, Copyright Plotly, Inc., under the MIT license</summary>
<pre class="license">{license}</pre></details></footer>
<script type="application/json" id="data">{data}</script>
{scripts}
</body>
</html>
"""

_LICENSE = "licenses/LICENSE.txt"


def to_page(explanation: Explanation, strips: Sequence[bytes]) -> str:
    """Write an explanation as a page; ``strips`` are JPEG files, one a clip."""
    assets = files("dsts_ray.explain")
    scripts = [get_plotlyjs(), (assets / "page.js").read_text(encoding="utf-8")]
    against = f", against {explanation.baseline}" if explanation.baseline else ""
    pictures = [base64.b64encode(strip).decode() for strip in strips]
    return _PAGE.format(
        title=html.escape(f"What {explanation.model} learned"),
        setup=html.escape(f"{explanation.setup}{against}"),
        style=(assets / "page.css").read_text(encoding="utf-8"),
        hashes=" ".join(map(_hash, scripts)),
        license=html.escape(distribution("plotly").read_text(_LICENSE) or ""),
        data=_embedded({"explanation": asdict(explanation), "strips": pictures}),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _embedded(content: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
