"""The report of a build that one looks at: one HTML file, which needs no network and no script.

build_reports.py    what a build leaves in exports/<name> becomes report.html
archive_reports.py  the same of an archive, from what it carries or from images of the user
evidence.py         what a report tells of
by_class.py         where the answers are right and wrong: classes, confusions, precision and recall
galleries.py        which pictures are shown
kinds.py            what is written below them, what is right, and what is a change
pictures.py         a picture with its answer drawn, small enough to be embedded
plots.py            where the points, lines and words of a plot are
page.py             the template filled
report.html.j2      the template, with report.css
"""
