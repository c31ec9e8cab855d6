// Package faults only holds the fault suite: real nodes and a real Postgres
// under faults that are drawn from a seed, and an oracle that judges what ran.
// DESIGN.md says what is injected, what is judged, and how to read what it
// prints.
package faults
