package postgres

// MigrateUpTo is MigrateUp with other files.
var MigrateUpTo = migrateUp
