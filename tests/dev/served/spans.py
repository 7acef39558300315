"""Sends spans, logs and a metric with the real SDK, which finds everything in the environment."""

from __future__ import annotations

import logging
import sys

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

logging.basicConfig()
count = int(sys.argv[1])
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=count + 1))
trace.set_tracer_provider(provider)
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
metrics.set_meter_provider(meters)

tracer = trace.get_tracer("spans")
for number in range(count // 10):
    with tracer.start_as_current_span("parent", attributes={"number": number}):
        for _ in range(9):
            with tracer.start_as_current_span("child"):
                pass
metrics.get_meter("spans").create_counter("sent").add(count)
provider.shutdown()
meters.shutdown()
