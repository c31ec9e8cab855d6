// Command bench measures a whole Riverbeat: real serve processes on a private
// Postgres that is made for the run. Absolute times differ from machine to
// machine; the figures to compare are the ratios, and those of one run.
//
//	go run ./internal/bench throughput
//	go run ./internal/bench burst -n 10000
//	go run ./internal/bench nodes -minutes 3 -kill
//	go run ./internal/bench line -n 5000
//	go run ./internal/bench recovery -n 50
//	go run ./internal/bench scale -schedules 1000000 -runs 10000000
//
// Without an argument it runs throughput and both bursts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		for _, each := range [][]string{{"throughput"}, {"burst", "-n", "1000"}, {"burst", "-n", "10000"}} {
			if err := run(ctx, each, out); err != nil {
				return err
			}
		}
		return nil
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	n := flags.Int("n", 10_000, "schedules, or jobs")
	minutes := flags.Int("minutes", 3, "how long")
	kill := flags.Bool("kill", false, "kill -9 one of the nodes between two minutes")
	schedules := flags.Int("schedules", 1_000_000, "schedules in the table")
	runs := flags.Int("runs", 10_000_000, "runs in the table")
	weeks := flags.Int("weeks", 13, "of history, a partition each; 13 are what is kept by default")
	verbose := flags.Bool("v", false, "show where the database's time went")
	policy := flags.String("policy", "mixed", "of the schedules: allow, skip, queue or mixed")
	rounds := flags.Int("rounds", 3, "of throughput")
	workers := flags.String("workers", "200", "of each node")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}

	dir, err := os.MkdirTemp("", "riverbeat-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{out: out, verbose: *verbose, weeks: max(*weeks, 1), policy: *policy, workers: *workers, binary: filepath.Join(dir, "riverbeat")}
	defer b.close(context.WithoutCancel(ctx))
	if err := b.open(ctx); err != nil {
		return err
	}
	switch args[0] {
	case "throughput":
		return b.throughput(ctx, *n, max(*rounds, 1))
	case "burst":
		return b.burst(ctx, *n)
	case "nodes":
		return b.nodes(ctx, min(*n, 1000), *minutes, *kill)
	case "line":
		return b.line(ctx, *n)
	case "recovery":
		return b.recovery(ctx, min(*n, 50))
	case "scale":
		return b.scale(ctx, *schedules, *runs, *minutes)
	}
	return errors.New("there are throughput, burst, nodes, line, recovery and scale")
}
