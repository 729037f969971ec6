"""How the page of a report looks, wide and narrow, on a screen and on paper."""

CSS = """
body { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #222;
       max-width: 1200px; margin: 1.5em auto; padding: 0 1em; line-height: 1.4;
       overflow-wrap: anywhere; }
h1 { font-size: 1.5em; margin-bottom: 0.6em; }
h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ccc; }
h3 { font-size: 1em; margin: 0.8em 0 0.2em; }
table { border-collapse: collapse; margin: 1em 0; max-width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.25em 1.2em 0.25em 0;
         border-bottom: 1px solid #e4e4e4; min-width: 3.5em; }
th { font-weight: normal; color: #555; }
.heads th { font-weight: bold; color: #222; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr));
        gap: 0.8em 1.2em; align-items: start; }
figure { margin: 0.4em 0; min-width: 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption, .caption { color: #555; font-size: 0.9em; }
.planes { display: grid; grid-template-columns: repeat(auto-fill, minmax(100px, 1fr)); gap: 0.6em; }
.planes figure { margin: 0; }
.planes img { width: 100%; box-sizing: border-box; image-rendering: pixelated;
              border: 3px solid #0072b2; }
.planes.out img { border: 3px dashed #e69f00; }
.planes figcaption { line-height: 1.2; margin-top: 0.2em; font-size: 0.85em; }
.verdict { border: 1px solid #ccc; border-left-width: 10px; padding: 0.2em 1em 0.6em; }
.verdict.good { border-left-color: #0072b2; }
.verdict.look { border-left-color: #e69f00; }
.verdict.wrong { border-left-color: #b2182b; }
.headline { font-size: 1.25em; font-weight: bold; margin: 0.4em 0; }
.todo { margin: 0.3em 0; }
.verdict ul { list-style: none; margin: 0; padding-left: 0.2em; }
.verdict li.look, .verdict li.wrong { font-weight: bold; }
.note { background: #f3f3f3; border-left: 4px solid #999; padding: 0.4em 0.8em; }
.warning { background: #fff6df; border-left: 4px solid #d9a400; padding: 0.4em 0.8em; }
summary { cursor: pointer; margin: 0.6em 0; }
@media (max-width: 700px) { th, td { padding-right: 0.6em; } }
"""
