# The image holds the one static binary, and no shell: it serves on every address of its
# container, as nobody in particular. Time zones are in the binary, certificates in the
# image below. Who wants commands (RIVERBEAT_COMMANDS) puts the binary into an image of
# theirs: COPY --from=riverbeat /riverbeat /riverbeat
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w -X riverbeat/cmd/command.version=${VERSION}" -o /riverbeat ./cmd/riverbeat

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /riverbeat /riverbeat
ENV RIVERBEAT_LISTEN=0.0.0.0:8080
EXPOSE 8080
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s CMD ["/riverbeat", "health"]
ENTRYPOINT ["/riverbeat"]
CMD ["serve"]
