# syntax=docker/dockerfile:1
# Two stages keep the toolchain out of the image. Debian slim, because the health check needs a shell.
# Debian has the LLVM of this version of Rust, which the build needs.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# As `make release`. It installs what the training needs.
RUN sh tools/release-pgo.sh

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="corsgate" \
      org.opencontainers.image.description="An edge proxy whose speciality is CORS" \
      org.opencontainers.image.licenses="Apache-2.0"
# Root certificates, for nodes with `tls` and without `ca`.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin corsgate
COPY --from=build /build/target/pgo/corsgate /usr/local/bin/corsgate
COPY conf/container.yaml /etc/corsgate/corsgate.yaml
USER 10001
EXPOSE 9080
# SIGTERM waits for running requests. SIGHUP reloads: docker kill --signal HUP CONTAINER
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9180 && printf 'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && grep -q '200 OK' <&3"]
# Exec form, so that corsgate is process 1 and receives the signals.
ENTRYPOINT ["/usr/local/bin/corsgate"]
CMD ["run", "--config", "/etc/corsgate/corsgate.yaml"]
