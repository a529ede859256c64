from __future__ import annotations


def test_runs_are_listed_one_a_line(typed, place):
    done = typed("runs", place)
    assert (done.exit_code, done.stdout) == (0, "sweep/lr=0.01\nsweep/lr=0.1\n")


def test_runs_are_found_in_a_bucket(typed, place, s3_url, s3_client):
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    for file in place.rglob("*"):
        if file.is_file() and not file.name.startswith("catalog"):
            s3_client.upload_file(str(file), bucket, f"{prefix}/{file.relative_to(place)}")
    done = typed("runs", s3_url, "--catalog", "sqlite://")
    assert (done.exit_code, done.stdout) == (0, "sweep/lr=0.01\nsweep/lr=0.1\n")
