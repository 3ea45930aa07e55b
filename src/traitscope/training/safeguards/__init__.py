"""What keeps a student from learning more than its task.

`acting` has what acts on the model in training only, and `anchors` the term of the loss that keeps
a student near its base.
"""
