"""What answers questions for the server: a model of this process (`local`), or one behind an endpoint (`remote`).

`answers` are what both return, `work` and `scheduler` decide what the model computes next, `computation` computes it,
and `answer_cache` keeps what was answered.
"""
