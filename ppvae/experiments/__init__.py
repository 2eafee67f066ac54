"""How a configuration becomes a fitted, stored, compared story.

From the top: `lineup` enters candidates one by one; `save_load` keeps a story of Python's; `experiment` prepares, fits
and settles one; `run_folder` and `story_file` are what lies on the disk; `build` makes a story of options; `options`
reads these from words and files; `trust` refuses what a file may not name; `lookup` finds what a name means.
"""
