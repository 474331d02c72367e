"""Pages of a run: what a name or message holds stays text, nothing is fetched, slices show the HU that they have."""

import re

import numpy as np
import pytest
from browser import SCREENS, check_page, chromium, open_page

from nnunet_difftumor.pages import Page, SliceStack

HOSTILE = '<script>document.title = "run"</script> & "quoted" <img src=x onerror=alert(1)>'


def stack(title: str = "Tumor 1") -> SliceStack:
    """HU of 100 before; after it 40 in a square, in which the mask is; the number of the slice at the corner."""
    before = np.full((7, 30, 40), 100.0, np.float32)
    after, mask = before.copy(), np.zeros(before.shape, bool)
    mask[2:5, 10:20, 15:25] = True
    after[mask] = 40.0
    after[:, 0:6, 0:6] = np.arange(0, 140, 20)[:, None, None]
    return SliceStack(title, before, after, mask, (2.0, 1.0, 1.0), range(11, 18), 3)


@pytest.fixture
def page(tmp_path):
    made = Page(f"Page of {HOSTILE}", HOSTILE)
    made.heading(f"Tables of {HOSTILE}")
    made.table(("name", HOSTILE), [(HOSTILE, 1.5), ("none", None), ("yes", True)])
    made.facts({HOSTILE: {"key": [HOSTILE]}, "long": "x" * 500})
    made.folded("more", {"name": HOSTILE})
    made.heading("Slices")
    made.text(HOSTILE)
    made.warning(HOSTILE)
    made.commands([f"difftumor synthesize '{HOSTILE}'"])
    made.slices(stack(HOSTILE))
    path = tmp_path / "report.html"
    made.write(path)
    return path


def test_texts_never_become_markup_and_nothing_is_fetched(page):
    text = page.read_text()
    assert text.count("<script>") == 1 and "onerror=alert(1)&gt;" in text and "<img src=x" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\(|@import""", text)


def test_a_page_without_slices_has_no_script(tmp_path):
    made = Page("plain")
    made.text("nothing to see")
    made.write(tmp_path / "plain.html")
    assert "<script>" not in (tmp_path / "plain.html").read_text()


@pytest.mark.slow
def test_in_a_browser(page):
    with chromium() as browser:
        check_page(browser, page)
        assert browser.title == f"Page of {HOSTILE}"
        open_page(browser, page, width=SCREENS[0][0], scheme="light")

        def grey(view: int, x: float, y: float) -> int:
            """Of a place on a canvas, as a share of its width and height."""
            return browser.execute_script(
                "const c = document.querySelectorAll('canvas')[arguments[0]];"
                "return c.getContext('2d').getImageData(c.width * arguments[1], c.height * arguments[2], 1, 1).data[0]",
                *(view, x, y),
            )

        def shown(hu: float, low: float, high: float) -> pytest.approx:
            return pytest.approx(255 * (hu - low) / (high - low), abs=1.5)

        middle, corner = (0.5, 0.5), (0.05, 0.05)
        assert grey(0, *middle) == shown(100, -175, 250) and grey(1, *middle) == shown(40, -175, 250)
        assert grey(2, *middle) > grey(1, *middle) + 15  # tinted
        assert grey(1, *corner) == shown(60, -175, 250)
        figure = browser.find_element("css selector", "figure.slices")
        for key, hu, number in (("\ue013", 80, 15), ("\ue010", 120, 17), ("\ue015", 100, 16), ("\ue011", 0, 11)):
            figure.send_keys(key)  # arrow up, end, arrow down, home
            assert grey(1, *corner) == shown(hu, -175, 250)
            assert figure.find_element("css selector", "output").text == str(number)
        browser.execute_script(
            "const s = document.querySelector('select'); s.value = 'liver'; s.dispatchEvent(new Event('change'))"
        )
        assert grey(0, *middle) == shown(100, 0, 200)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert not browser.find_element("css selector", ".controls").is_displayed()
        assert browser.find_element("css selector", "canvas").is_displayed()
