"""The gate: an export enters an archive only with evidence that it answers as the eager fp32 reference does.

labelled.py            which images, and what is known to be in them
picture_labels.py      which labels a file says that pictures show
coco_files.py          what every COCO annotation file has
observations.py        what a handler sees in them; the reference's are kept on disk
reading.py             whether what the reference answers can be meant so
seen_answers.py        what that is judged from
class_reading.py       what is odd about a classifier's answers
box_reading.py         what is odd about a detector's
mirroring.py           whether boxes of mirrored pictures are mirrored
layouts.py             which layouts of boxes would fit instead
alternatives.py        whether another usual preprocessing is better
agreement.py           how the answers of two handlers differ
instance_agreement.py  the same of masks and keypoints
accuracy.py            how good the answers are, where the truth is known
bounds.py              how much may differ, for each precision
distributions.py       how answers are distributed, for the traffic to be compared with
kept_answers.py        what an export answered, kept for the report of the build
golden_making.py       the picture and answer by which a served model is known to be right
gate.py                verify_export writes verification.json, require_verified asks for it
"""
