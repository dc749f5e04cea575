"""Which pictures of a result a person should look at: the least sure, those of two results that differ, and the errors.

results.py       a result of predict_images.py, row by row
doubts.py        how sure an answer is, and how far two answers differ
choosing.py      the pictures worth a look, of all rows
sheet.py         the page with these pictures, and the list of them
review.html.j2   its template
"""
