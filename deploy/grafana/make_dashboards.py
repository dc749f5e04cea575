"""Write Grafana's dashboards into the folder beside this file. The code is the source, the JSON is what Grafana reads.

python deploy/grafana/make_dashboards.py
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption

FOLDER = Path(__file__).resolve().parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="vision")
OF_MODEL = 'instance=~"$instance",model=~"$model"'
ALL = ".*"  # what a variable stands for when all is chosen
HEIGHT, WIDTH = 8, 12  # of a panel; Grafana's page is 24 wide


@dataclass(frozen=True)
class Panel:
    """One panel. queries: an expression for each legend. unit: as Grafana names it. now: the last value alone."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    now: bool = False


def quantiles(name: str, labels: str, by: str) -> dict[str, str]:
    """Return the 99th and the 50th of 100 for each combination of the labels in `by`."""
    legend = "".join(f" {{{{{label}}}}}" for label in by.split(", "))
    buckets = f"sum by ({by}, le) (rate({name}_bucket{{{labels}}}[5m]))"
    return {f"p{share}{legend}": f"histogram_quantile(0.{share}, {buckets})" for share in (99, 50)}


def rate(name: str, labels: str, by: str, window: str = "1m") -> str:
    return f"sum by ({by}) (rate({name}{{{labels}}}[{window}]))"


FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'
INSTANCE = 'instance=~"$instance"'
STAGE_S = f"sum by (model, stage) (rate(vision_stage_duration_seconds_sum{{{OF_MODEL}}}[5m]))"
BATCH_S = f"sum by (model) (rate(vision_batch_duration_seconds_sum{{{OF_MODEL}}}[5m]))"
DASHBOARDS = {
    "fleet": (
        "Vision: fleet",
        [
            Panel("Servers that answer", {"{{instance}}": f"vision_up{{{INSTANCE}}}"}, now=True),
            Panel(
                "Alerts", {"{{alertname}}": 'count by (alertname) (ALERTS{alertstate="firing"}) or vector(0)'}, now=True
            ),
            Panel("Requests a second", {"{{instance}}": rate("vision_requests_total", INSTANCE, "instance")}, "reqps"),
            Panel(
                "Failed share of requests",
                {
                    "{{instance}}": f'sum by (instance) (rate(vision_requests_total{{{INSTANCE},status=~"5.."}}[5m]))'
                    f" / sum by (instance) (rate(vision_requests_total{{{INSTANCE}}}[5m]))"
                },
                "percentunit",
            ),
            Panel(
                "Workers",
                {
                    "ready {{instance}}": f"sum by (instance) (vision_worker_ready{{{INSTANCE}}})",
                    "expected {{instance}}": f"sum by (instance) (vision_worker_expected{{{INSTANCE}}})",
                },
            ),
            Panel("Waiting requests", {"{{instance}}": f"sum by (instance) (vision_queue_length{{{INSTANCE}}})"}),
            Panel(
                "Ends of workers in 5 minutes",
                {"{{instance}} {{model}}": f"increase(vision_worker_restarts_total{{{INSTANCE}}}[5m])"},
            ),
            Panel(
                "Starts and stops",
                {
                    "draining {{instance}}": f"vision_draining{{{INSTANCE}}}",
                    "started again {{instance}}": f"changes(vision_start_time_seconds{{{INSTANCE}}}[5m])",
                },
            ),
            Panel(
                "Memory",
                {
                    "workers {{instance}}": f"sum by (instance) (vision_worker_resident_memory_bytes{{{INSTANCE}}})",
                    "frontend {{instance}}": f"vision_frontend_resident_memory_bytes{{{INSTANCE}}}",
                },
                "bytes",
            ),
            Panel(
                "Free share of disks",
                {"{{instance}} {{place}}": f"vision_disk_free_bytes{{{INSTANCE}}} / vision_disk_size_bytes"},
                "percentunit",
            ),
            Panel(
                "Tokens end in",
                {"{{instance}} {{token}}": f"vision_token_end_time_seconds{{{INSTANCE}}} - time()"},
                "s",
            ),
            Panel("Parts that cannot be read", {"{{instance}} {{part}}": f"vision_scrape_failed{{{INSTANCE}}}"}),
        ],
    ),
    "model": (
        "Vision: model",
        [
            Panel(
                "Served",
                {"{{model}} {{version}} {{backend}} {{precision}}": f"vision_model_info{{{OF_MODEL}}}"},
                now=True,
            ),
            Panel(
                "Golden prediction is right",
                {"{{model}} {{version}}": f"vision_golden_prediction_right{{{OF_MODEL}}}"},
                now=True,
            ),
            Panel(
                "Shift of scores since the verification",
                {"{{model}} {{version}}": f"vision_score_shift{{{OF_MODEL}}}"},
            ),
            Panel("Default version", {"{{model}} {{version}}": f"vision_default_version{{{OF_MODEL}}}"}),
            Panel(
                "Requests a second",
                {"{{model}} {{version}}": rate("vision_requests_total", OF_MODEL, "model, version")},
                "reqps",
            ),
            Panel(
                "Errors a second",
                {
                    "{{model}} {{version}} {{status}} {{error}}": rate(
                        "vision_requests_total", f'{OF_MODEL},status!="200"', "model, version, status, error"
                    )
                },
                "reqps",
            ),
            Panel(
                "Images a second",
                {"{{model}} {{outcome}}": rate("vision_images_total", OF_MODEL, "model, outcome")},
            ),
            Panel("Seconds of a batch", quantiles("vision_batch_duration_seconds", OF_MODEL, "model, version"), "s"),
            Panel(
                "Seconds in the queue, through the front",
                quantiles("vision_request_queue_seconds", OF_MODEL, "model, version"),
                "s",
            ),
            Panel(
                "Requests in a batch",
                {
                    "{{model}} {{version}}": f"sum by (model, version) (rate(vision_batch_size_sum{{{OF_MODEL}}}[5m]))"
                    f" / sum by (model, version) (rate(vision_batch_size_count{{{OF_MODEL}}}[5m]))"
                },
            ),
            Panel(
                "Workers",
                {
                    "ready {{model}} {{version}}": f"vision_worker_ready{{{OF_MODEL}}}",
                    "expected {{model}} {{version}}": f"vision_worker_expected{{{OF_MODEL}}}",
                },
            ),
            Panel(
                "Waiting requests",
                {
                    "waiting {{model}} {{version}}": f"vision_queue_length{{{OF_MODEL}}}",
                    "at most {{model}} {{version}}": f"vision_queue_capacity{{{OF_MODEL}}}",
                },
            ),
            Panel(
                "Golden predictions in 5 minutes",
                {
                    "{{model}} {{version}} {{result}}": f"increase(vision_golden_predictions_total{{{OF_MODEL}}}[5m])",
                },
            ),
            Panel(
                "Starts of workers in 5 minutes",
                {"{{model}} {{version}}": f"increase(vision_worker_starts_total{{{OF_MODEL}}}[5m])"},
            ),
        ],
    ),
    "stages": (
        "Vision: stages",
        [
            Panel(
                "Share of each stage",
                {
                    "{{model}} {{stage}}": f"{STAGE_S} / on (model) group_left {BATCH_S}",
                },
                "percentunit",
            ),
            *(
                Panel(
                    f"Seconds of a batch in {stage}",
                    quantiles("vision_stage_duration_seconds", f'{OF_MODEL},stage="{stage}"', "model, version"),
                    "s",
                )
                for stage in ("decode", "preprocess", "inference", "postprocess")
            ),
        ],
    ),
    "front": (
        "Vision: front",
        [
            Panel("Front runs", {"{{instance}}": f"vision_front_up{{{INSTANCE}}}"}, now=True),
            Panel(
                "Certificate ends in",
                {"{{instance}}": f"vision_front_certificate_end_time_seconds{{{INSTANCE}}} - time()"},
                "s",
                now=True,
            ),
            Panel(
                "Answers a second, by status",
                {"{{status}}": rate("vision_front_requests_total", INSTANCE, "status")},
                "reqps",
            ),
            Panel(
                "Answers a second, by client",
                {"{{client}}": rate("vision_front_requests_total", INSTANCE, "client")},
                "reqps",
            ),
            Panel(
                "Refused by the front in 5 minutes",
                {
                    "{{client}} {{status}}": "sum by (client, status) "
                    f'(increase(vision_front_requests_total{{{INSTANCE},status=~"401|413|429"}}[5m]))'
                },
            ),
            Panel(
                "Seconds of a request", quantiles("vision_front_request_duration_seconds", INSTANCE, "instance"), "s"
            ),
            Panel(
                "Second tries in 5 minutes",
                {"{{instance}}": f"increase(vision_front_second_tries_total{{{INSTANCE}}}[5m])"},
            ),
            Panel(
                "Bytes a second",
                {
                    "in {{client}}": rate("vision_front_received_bytes_total", INSTANCE, "client"),
                    "out {{client}}": rate("vision_front_sent_bytes_total", INSTANCE, "client"),
                },
                "Bps",
            ),
        ],
    ),
}


def make_dashboard(name: str, title: str, panels: list[Panel]) -> str:
    """Return a dashboard as JSON."""
    builder = (
        dashboard.Dashboard(title).uid(f"vision-{name}").tags(["vision"]).refresh("15s").time("now-1h", "now")
        .timezone("browser")
        .with_variable(make_variable("instance", "label_values(vision_up, instance)"))
    )  # fmt: skip
    if name in ("model", "stages"):
        builder = builder.with_variable(
            make_variable("model", 'label_values(vision_worker_expected{instance=~"$instance"}, model)')
        )
    for number, panel in enumerate(panels, 1):
        builder = builder.with_panel(make_panel(number, panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def make_variable(name: str, query: str) -> dashboard.QueryVariable:
    variable: dashboard.QueryVariable = dashboard.QueryVariable(name)
    variable.datasource(SOURCE).query(query).multi(True).include_all(True)
    variable.all_value(ALL).current(VariableOption(selected=True, text="All", value="$__all"))
    return variable


def make_panel(number: int, panel: Panel) -> stat.Panel | timeseries.Panel:
    builder = stat.Panel() if panel.now else timeseries.Panel().min(0)
    builder.id(number).title(panel.title).unit(panel.unit).datasource(SOURCE).height(HEIGHT).span(WIDTH)
    for name, (legend, expression) in zip("ABCDEF", panel.queries.items()):
        builder.with_target(prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(name))
    return builder


def make_all() -> Iterator[tuple[str, str]]:
    """Yield the name of each file and its content."""
    for name, (title, panels) in DASHBOARDS.items():
        yield f"{name}.json", make_dashboard(name, title, panels)


def main() -> None:
    for name, content in make_all():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
