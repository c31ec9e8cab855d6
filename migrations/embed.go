// Package migrations holds the schema of Riverbeat as tern migrations, in
// order. River's own migrations come before them; package postgres applies
// both.
//
// Migrations run with search_path set to the product's schema, while nodes of
// the version before are working. Hence: expand first, contract a release
// later; no statement that holds a strong lock for long; an index on a large
// table is made CONCURRENTLY in a migration of its own, on the partitioned
// table per partition. Files go through text/template, so "{{" is code.
package migrations

import "embed"

// FS has the migrations as NNN_name.sql at its root.
//
//go:embed *.sql
var FS embed.FS
