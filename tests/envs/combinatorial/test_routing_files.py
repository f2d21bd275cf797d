"""Files of TSPLIB and CVRPLIB against their published optima, and complaints that name the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polyathlon.envs.combinatorial.files import parse_instance, read_file, read_solution_cost
from polyathlon.envs.combinatorial.solvers import solve
from polyathlon.envs.errors import UsageError

DATA = Path(__file__).parents[2] / "data"
BURMA14 = """NAME: burma14
TYPE: TSP
DIMENSION: 14
EDGE_WEIGHT_TYPE: GEO
NODE_COORD_SECTION
1 16.47 96.10
2 16.47 94.44
3 20.09 92.54
4 22.39 93.37
5 25.23 97.24
6 22.00 96.05
7 20.47 97.02
8 17.20 96.29
9 16.30 97.38
10 14.05 98.12
11 16.53 97.38
12 21.52 95.59
13 19.41 97.13
14 20.09 94.55
EOF
"""
GR17 = """NAME: gr17
TYPE: TSP
DIMENSION: 17
EDGE_WEIGHT_TYPE: EXPLICIT
EDGE_WEIGHT_FORMAT: LOWER_DIAG_ROW
EDGE_WEIGHT_SECTION
 0 633 0 257 390 0 91 661 228 0 412 227
 169 383 0 150 488 112 120 267 0 80 572 196
 77 351 63 0 134 530 154 105 309 34 29 0
 259 555 372 175 338 264 232 249 0 505 289 262
 476 196 360 444 402 495 0 353 282 110 324 61
 208 292 250 352 154 0 324 638 437 240 421 329
 297 314 95 578 435 0 70 567 191 27 346 83
 47 68 189 439 287 254 0 211 466 74 182 243
 105 150 108 326 336 184 391 145 0 268 420 53
 239 199 123 207 165 383 240 140 448 202 57 0
 246 745 472 237 528 364 332 349 202 685 542 157
 289 426 483 0 121 518 142 84 297 35 29 36
 236 390 238 301 55 96 153 336 0
EOF
"""
ROUTES = """NAME : toy-n4-k2
COMMENT : (a square)
TYPE : CVRP
DIMENSION : 4
EDGE_WEIGHT_TYPE : EUC_2D
CAPACITY : 6
NODE_COORD_SECTION
1 0 0
2 10 0
3 10 10
4 0 10
DEMAND_SECTION
1 0
2 3
3 4
4 2
DEPOT_SECTION
 1
 -1
EOF
"""


@pytest.mark.parametrize(
    ("text", "optimum"),
    [(BURMA14, 3323), (GR17, 2085), ((DATA / "berlin52.tsp").read_text(), 7542)],
)
def test_published_optima_are_reached(text, optimum):
    read = parse_instance(text)
    d = read.instance["distances"]
    assert read.problem == "tsp" and (d == d.T).all() and (np.diagonal(d) == 0).all() and (d == np.rint(d)).all()
    solver = "held_karp" if len(d) <= 16 else "fast_tsp"
    options = {} if solver == "held_karp" else {"seconds": 1.0}
    assert solve("tsp", read.instance, solver, **options).cost[0] == optimum


def test_distances_by_hand():
    head = "TYPE: TSP\nDIMENSION: 3\nEDGE_WEIGHT_TYPE: {}\nNODE_COORD_SECTION\n1 0 0\n2 1.4 0.3\n3 3.0 5.0\nEOF\n"
    expected = {
        "EUC_2D": (1, 6, 5),  # 1.43, 5.83, 4.96
        "CEIL_2D": (2, 6, 5),
        "FLOOR_2D": (1, 5, 4),
        "EXACT_2D": (1432, 5831, 4965),
        "MAN_2D": (2, 8, 6),  # 1.7, 8, 6.3
        "MAX_2D": (1, 5, 5),
        "ATT": (1, 2, 2),  # sqrt(d^2 / 10): 0.45, 1.84, 1.57, rounded up
    }
    for kind, (a, b, c) in expected.items():
        d = parse_instance(head.format(kind)).instance["distances"]
        assert (d[0, 1], d[0, 2], d[1, 2]) == (a, b, c), kind


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("UPPER_ROW", "1 2\n3"),
        ("LOWER_ROW", "1 2 3"),
        ("UPPER_DIAG_ROW", "0 1 2 0 3 0"),
        ("LOWER_DIAG_ROW", "0\n1 0\n2 3 0"),
        ("FULL_MATRIX", "0 1 2\n1 0 3\n2 3 0"),
    ],
)
def test_all_forms_of_a_matrix(kind, numbers):
    head = "TYPE: TSP\nDIMENSION: 3\nEDGE_WEIGHT_TYPE: EXPLICIT\nEDGE_WEIGHT_FORMAT: "
    read = parse_instance(f"{head}{kind}\nEDGE_WEIGHT_SECTION\n{numbers}\nEOF\n")
    assert read.instance["distances"].tolist() == [[0, 1, 2], [1, 0, 3], [2, 3, 0]]
    assert read.given == {} and "xy" not in read.instance


def test_a_matrix_that_depends_on_the_direction_belongs_to_atsp():
    text = "TYPE: {}\nDIMENSION: 2\nEDGE_WEIGHT_TYPE: EXPLICIT\nEDGE_WEIGHT_FORMAT: FULL_MATRIX\nEDGE_WEIGHT_SECTION\n"
    read = parse_instance(text.format("ATSP") + "9999 1\n2 9999\n")
    assert read.problem == "atsp" and read.given["distances"].tolist() == [[0, 1], [2, 0]]
    with pytest.raises(UsageError, match="line 5: the distances depend on the direction, but TYPE is TSP"):
        parse_instance(text.format("TSP") + "0 1\n2 0\n")


def test_vehicles_and_their_solutions(tmp_path):
    pytest.importorskip("vrplib")
    read = parse_instance(ROUTES)
    assert (read.name, read.problem, read.comment) == ("toy-n4-k2", "cvrp", "(a square)")
    # rounding makes the diagonal 14
    assert solve("cvrp", read.instance, "dynamic_programming").cost[0] == 20 + 34
    assert read.given["demand"].tolist() == [0, 3, 4, 2] and read.given["capacity"] == 6
    (tmp_path / "toy.sol").write_text("Route #1: 1 3\nRoute #2: 2\nCost 54\n")
    assert read_solution_cost(tmp_path / "toy.sol") == 54
    (tmp_path / "bad.sol").write_text("Route #1: 1 3\n")
    with pytest.raises(UsageError, match="no line 'Cost NUMBER'"):
        read_solution_cost(tmp_path / "bad.sol")


def test_orienteering_files():
    text = ROUTES.replace("CVRP", "OP").replace("CAPACITY : 6", "COST_LIMIT : 25").replace("DEMAND_", "NODE_SCORE_")
    read = parse_instance(text)
    assert read.problem == "op" and read.given["max_length"] == 25 and read.given["prize"].tolist() == [3, 4, 2]
    assert solve("op", read.instance, "brute_force").cost[0] == -3


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("TYPE : CVRP", "TYPE : CVPR", "line 3: unknown TYPE 'CVPR'. Did you mean 'CVRP'"),
        ("TYPE : CVRP", "", "the line TYPE : ... is missing"),
        ("DIMENSION : 4", "DIMENSION : four", "line 4: DIMENSION must be a number, got 'four'"),
        ("DIMENSION : 4", "DIMENSION : 1", "line 4: DIMENSION must be an integer from 2"),
        ("DIMENSION : 4", "DIMENSION : 5", r"line 7: NODE_COORD_SECTION has rows for 4 of 5 nodes; node 5 is missing"),
        ("DIMENSION : 4", "DIMENSION : 3", "line 11: nodes are numbers from 1 to 3"),
        ("EUC_2D", "EUC_3D", "line 5: unknown EDGE_WEIGHT_TYPE 'EUC_3D'"),
        ("3 10 10", "3 10", "line 10: a row of NODE_COORD_SECTION is a node and 2 coordinates, got '3 10'"),
        ("3 10 10", "3 10 ten", "line 10: coordinates must be a number, got 'ten'"),
        ("3 10 10", "3 10 nan", "line 10: coordinates must be finite"),
        ("3 10 10", "2 10 10", "line 10: node 2 stands in NODE_COORD_SECTION a second time"),
        ("3 10 10", "3.5 10 10", "line 10: nodes are numbers"),
        ("3 4\n", "3 7\n", "line 15: the demand of node 3 must be from 0 to the capacity 6, got 7"),
        ("3 4\n", "3 -4\n", "line 15: the demand of node 3"),
        ("1 0\n2 3", "1 2\n2 3", "line 13: the demand of the depot, node 1, must be 0"),
        ("CAPACITY : 6", "CAPACITY : 0", "line 6: CAPACITY must be positive"),
        ("CAPACITY : 6", "CAPACITY : 6\nCAPACITY : 7", "line 7: CAPACITY stands here a second time; first in line 6"),
        ("CAPACITY : 6\n", "", "the line CAPACITY : ... is missing"),
        (
            "DEMAND_SECTION",
            "DEMANDS_SECTION",
            "line 12: unknown keyword 'DEMANDS_SECTION'. Did you mean 'DEMAND_SECTION'",
        ),
        ("DEMAND_SECTION\n1 0\n2 3\n3 4\n4 2\n", "", "the section DEMAND_SECTION is missing"),
        (" 1\n -1", " 2\n -1", "line 18: the depot must be node 1"),
        ("NAME : toy-n4-k2", "toy", "line 1: neither KEY : VALUE nor a row of a section: 'toy'"),
    ],
)
def test_malformed_files_are_refused_with_their_line(old, new, text):
    assert old in ROUTES
    with pytest.raises(UsageError, match=text):
        parse_instance(ROUTES.replace(old, new, 1))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ("0 1 2\n1 0 3\n2 3", "line 8: FULL_MATRIX of 3 nodes has 9 distances; the section ends after 8"),
        ("0 1 2\n1 0 3 4\n2 3 0", "line 8: FULL_MATRIX of 3 nodes has 9 distances; here are more"),
        ("0 1 2\n1 0 -3\n2 -3 0", "line 7: a distance must not be negative"),
        ("0 1 2\n1 x 3\n2 3 0", "line 7: a distance must be a number, got 'x'"),
        ("", "line 5: FULL_MATRIX of 3 nodes has 9 distances; the section ends after 0"),
    ],
)
def test_malformed_matrices_are_refused_with_their_line(numbers, text):
    head = "TYPE: TSP\nDIMENSION: 3\nEDGE_WEIGHT_TYPE: EXPLICIT\nEDGE_WEIGHT_FORMAT: FULL_MATRIX\nEDGE_WEIGHT_SECTION\n"
    with pytest.raises(UsageError, match=text):
        parse_instance(head + numbers + "\n")


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "missing.tsp")
    (tmp_path / "picture.tsp").write_bytes(bytes(range(256)))
    with pytest.raises(UsageError, match="not a text file"):
        read_file(tmp_path / "picture.tsp")
    (tmp_path / "empty.tsp").write_text("")
    with pytest.raises(UsageError, match="is this a TSPLIB or CVRPLIB file"):
        read_file(tmp_path / "empty.tsp")


def test_an_independent_reader_reads_the_same(tmp_path):
    vrplib = pytest.importorskip("vrplib")
    (tmp_path / "toy.vrp").write_text(ROUTES)
    other, read = vrplib.read_instance(tmp_path / "toy.vrp"), read_file(tmp_path / "toy.vrp")
    np.testing.assert_array_equal(other["node_coord"], read.given["xy"])
    np.testing.assert_array_equal(other["demand"], read.given["demand"])
    np.testing.assert_array_equal(np.rint(other["edge_weight"]), read.instance["distances"])


TWO = "TYPE : TSP\nDIMENSION : 2\nEDGE_WEIGHT_TYPE : EUC_2D\nNODE_COORD_SECTION\n1 0 0\n2 3 4\nEOF\n"


def test_what_a_file_says_of_itself_may_have_any_form(tmp_path):
    said = TWO.replace("TYPE : TSP", "COMMENT : one\nCOMMENT : two: three\nTYPE : TSP (M.~Hofmeister)", 1)
    read = parse_instance("\ufeff" + said)
    assert read.problem == "tsp" and read.comment == "one\ntwo: three" and read.instance["distances"][0, 1] == 5
    for number, data in enumerate((said.replace("one", "Zürich").encode("latin-1"), said.encode("utf-8-sig"))):
        path = tmp_path / f"{number}.tsp"
        path.write_bytes(data)
        assert read_file(path).instance["distances"][0, 1] == 5
    assert read_file(tmp_path / "0.tsp").comment.startswith("Zürich\n")
    (tmp_path / "2.tsp").write_bytes(said.encode("utf-16"))
    with pytest.raises(UsageError, match="not a text file"):
        read_file(tmp_path / "2.tsp")
    with pytest.raises(UsageError, match="line 2: NAME stands here a second time"):
        parse_instance("NAME : a\nNAME : b\n" + TWO)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("DISTANCE : 25", "DISTANCE limits the length of each route.*CVRP.*take it out"),
        ("SERVICE_TIME : 10", "SERVICE_TIME adds a time"),
        ("VEHICLES : 2", "VEHICLES limits the number of routes"),
        ("TIME_WINDOW_SECTION\n1 0 10\n2 0 10\n3 0 10\n4 0 10", "TIME_WINDOW_SECTION says when"),
        ("FIXED_EDGES_SECTION\n1 2\n-1", "FIXED_EDGES_SECTION fixes edges"),
        ("PICKUP_AND_DELIVERY_SECTION\n1 2", "PICKUP_AND_DELIVERY_SECTION pairs"),
        ("CAPACITIES : 6", "unknown keyword 'CAPACITIES'.*CAPACITY"),
        ("COST_LIMIT : 6", "unknown keyword 'COST_LIMIT'"),
    ],
)
def test_what_would_change_the_problem_is_refused(line, why):
    with pytest.raises(UsageError, match=f"line 7: {why}"):
        parse_instance(ROUTES.replace("NODE_COORD", f"{line}\nNODE_COORD", 1))


def test_what_changes_nothing_is_read():
    changed = ROUTES.replace("NODE_COORD", "SERVICE_TIME : 0\nNODE_COORD_TYPE : TWOD_COORDS\nNODE_COORD", 1)
    assert sorted(parse_instance(changed).instance) == sorted(parse_instance(ROUTES).instance)
    for line in ("CAPACITY : 6", "FIXED_EDGES_SECTION\n1 2\n-1", "DEMAND_SECTION\n1 0\n2 1"):
        with pytest.raises(UsageError, match=f"{line.split()[0]} .*no part of TSP"):
            parse_instance(TWO.replace("NODE_COORD", f"{line}\nNODE_COORD", 1))


def test_distances_that_are_not_rounded():
    head = "TYPE: TSP\nDIMENSION: 3\nEDGE_WEIGHT_TYPE: {}\nNODE_COORD_SECTION\n1 0 0\n2 1.4 0.3\n3 3.0 5.0\nEOF\n"
    euclidean = (np.hypot(1.4, 0.3), np.hypot(3, 5), np.hypot(1.6, 4.7))
    expected = {
        **dict.fromkeys(("EUC_2D", "CEIL_2D", "FLOOR_2D"), euclidean),
        "MAN_2D": (1.7, 8.0, 6.3),
        "MAX_2D": (1.4, 5.0, 4.7),
        "ATT": tuple(np.array(euclidean) / np.sqrt(10)),
    }
    for kind, (a, b, c) in expected.items():
        d = parse_instance(head.format(kind), rounding="none").instance["distances"]
        np.testing.assert_allclose((d[0, 1], d[0, 2], d[1, 2]), (a, b, c), rtol=1e-12)
    for kind in ("GEO", "EXACT_2D"):
        with pytest.raises(UsageError, match=f"line 3: rounding='none' has no meaning.*{kind}.*EUC_2D"):
            parse_instance(head.format(kind), rounding="none")
    with pytest.raises(UsageError, match=r"(?s)rounding 'non'.*none"):
        parse_instance(head.format("EUC_2D"), rounding="non")


def test_many_nodes_need_one_matrix_or_are_refused(monkeypatch):
    """Distances are computed by blocks of rows: no [N, N, 2]; what does not fit is refused before it is computed."""
    import tracemalloc

    from polyathlon.envs.combinatorial import heuristics, weights

    n = 3000
    points = np.random.default_rng(0).integers(0, 10_000, (n, 2))
    text = f"TYPE : TSP\nDIMENSION : {n}\nEDGE_WEIGHT_TYPE : EUC_2D\nNODE_COORD_SECTION\n"
    text += "".join(f"{i + 1} {x} {y}\n" for i, (x, y) in enumerate(points))
    tracemalloc.start()
    d = parse_instance(text).instance["distances"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * n * n + (64 << 20)
    i, j = np.random.default_rng(1).integers(0, n, (2, 500))
    np.testing.assert_array_equal(d[i, j], np.floor(np.hypot(*(points[i] - points[j]).T) + 0.5))
    monkeypatch.setattr(weights, "free_memory", lambda: 8.0 * n * n - 1)
    with pytest.raises(UsageError, match=r"the distances between 3000 nodes need 0\.1 GB of memory"):
        parse_instance(text)
    monkeypatch.setattr(weights, "free_memory", lambda: 8.0 * n * n + 1)
    with pytest.raises(UsageError, match="need 0.5 GB of memory, and 0.1 GB are free"):
        solve("tsp", {"distances": d}, "fast_tsp")
    with pytest.raises(UsageError, match="PyVRP takes, need 2.7 GB"):
        solve("tsp", {"distances": d}, "pyvrp")
    with pytest.raises(UsageError, match="two_opt compares, need 0.4 GB"):
        heuristics.two_opt({"distances": d}, range(n))


def test_the_memory_that_is_free_is_what_the_system_says():
    import resource
    import subprocess
    import sys

    from polyathlon.envs.combinatorial.weights import free_memory

    assert 1 << 24 < free_memory() < 1 << 50
    program = (
        "import resource; from polyathlon.envs.combinatorial.weights import free_memory; "
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 36, 1 << 36)); a = free_memory(); "
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33)); print(min(a, 1 << 33) >= free_memory())"
    )
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY or free_memory() < 1 << 50
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_numbers_and_ends_of_files_are_those_of_the_library():
    with pytest.raises(UsageError, match="line 6: coordinates must be a number, got '3_0'"):  # Python's 30
        parse_instance(TWO.replace("2 3 4", "2 3_0 4"))
    with pytest.raises(UsageError, match="line 4: coordinates are so large that distances are not finite"):
        parse_instance(TWO.replace("1 0 0", "1 -1e308 0").replace("2 3 4", "2 1e308 4"))
    assert (
        parse_instance(TWO.lower().replace("tsp", "TSP").replace("euc", "EUC").replace("_2d", "_2D")).problem == "tsp"
    )
