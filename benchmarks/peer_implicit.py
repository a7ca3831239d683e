"""BPR of the library `implicit` on a log, for `speed_recommendation.py`; wants only implicit, numpy and scipy.

    python benchmarks/peer_implicit.py log.npz --iterations 3 --threads 1

The file has `users` and `items`, one interaction a row. Prints JSON: seconds of each pass of training (a pass draws as
many triples as there are interactions), and of listing the ten best unseen items of a thousand users.
"""

from __future__ import annotations

import argparse
import json
import time

import implicit
import numpy as np
from implicit.cpu.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    log = np.load(options.log)
    matrix = csr_matrix((np.ones(len(log["users"]), dtype=np.float32), (log["users"], log["items"])))
    passes: list[dict[str, float]] = []
    model = BayesianPersonalizedRanking(
        factors=64, learning_rate=0.01, iterations=options.iterations + 1, num_threads=options.threads, random_state=0
    )
    moment = [time.perf_counter(), time.process_time()]

    def lap(*_: object) -> None:
        now = [time.perf_counter(), time.process_time()]
        passes.append({"wall": now[0] - moment[0], "cpu": now[1] - moment[1]})
        moment[:] = [time.perf_counter(), time.process_time()]

    model.fit(matrix, show_progress=False, callback=lap)
    users = np.arange(min(1000, matrix.shape[0]))
    wall, cpu = time.perf_counter(), time.process_time()
    model.recommend(users, matrix[users], N=10, filter_already_liked_items=True)
    ranking = {"users": len(users), "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    found = {"version": implicit.__version__, "triples": int(matrix.nnz), "passes": passes[1:], "ranking": ranking}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
