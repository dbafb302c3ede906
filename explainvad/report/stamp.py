"""The visible part of a signature: printed name, date and time, meaning and reason, as a small page with its fonts.

``python -m explainvad.report.stamp`` turns HTML on stdin into a PDF on stdout, in a process of its own for the reason
that :mod:`explainvad.report.pdf_worker` gives.
"""

from __future__ import annotations

import subprocess
import sys

from explainvad.errors import RenderError
from explainvad.report.assets import template_environment
from explainvad.report.render_process import command, environment
from explainvad.report.wording import in_utc

_SECONDS = 60
_SIZES = (6.4, 5.8, 5.2, 4.6, 4.1)  # points


def stamp_pdf(name: str, time: str, meaning: str, reason: str | None, size: tuple[float, float]) -> bytes:
    """Return a PDF of one page with the ``size`` (width, height) in points. Raises RenderError when that fails.

    ``time`` is ISO 8601; it is printed to the second, in UTC.
    """
    html = (
        template_environment()
        .get_template("stamp.html")
        .render(
            name=name,
            time=f"{in_utc(time):%Y-%m-%d %H:%M:%S} UTC",
            meaning=meaning,
            reason=reason,
            width=size[0],
            height=size[1],
        )
    )
    try:
        done = subprocess.run(  # noqa: S603
            command("explainvad.report.stamp"),
            input=html.encode(),
            env=environment(),
            capture_output=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise RenderError(f"the stamp was not ready after {_SECONDS} s; sign again") from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise RenderError(f"the stamp could not be drawn (exit code {done.returncode}): {last[0]}")
    return done.stdout


def main() -> None:
    """Draw one stamp, as large as its room allows; nothing is fetched."""
    import weasyprint
    from weasyprint.urls import URLFetcher

    fetcher = URLFetcher(allowed_protocols=set(), fail_on_errors=True)
    html = weasyprint.HTML(string=sys.stdin.buffer.read().decode(), url_fetcher=fetcher)
    for size in _SIZES:
        sheet = weasyprint.CSS(string=f"html {{ font-size: {size}pt }}", url_fetcher=fetcher)
        document = html.render(stylesheets=[sheet])
        if len(document.pages) == 1:
            sys.stdout.buffer.write(document.write_pdf())
            return
    sys.exit("the texts are too long for the field")


if __name__ == "__main__":
    main()
