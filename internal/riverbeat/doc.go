// Package riverbeat holds the nouns of the product and the rules about them:
// what a schedule, a task definition and a run are, when a recurrence ticks,
// which ticks are due (Plan), what becomes of a run that would overlap another
// (Admit), how a schedule is named and what its lock key is.
//
// The package is pure. Time, counts and stored rows are arguments; it knows no
// SQL, no HTTP, no clock, no goroutine and no log. A function here gives the
// same answer for the same arguments on every machine whose tzdata agrees.
//
// The words are the same in column, JSON, Go and prose:
//
//	task             what can be run, by name
//	task definition  the description of a task: schema, executor, limits
//	schedule         a task, arguments, a recurrence, a policy
//	tick             one nominal time of a schedule
//	run              what became of a tick, or of a request
//	attempt          one try of a run
//	job              River's row; a run may have several, one after another
//	lock key         hash of a task and its effective arguments
//	line             the runs that wait behind a lock key
//	node             a process
//	session          the one database session by which a node is known to live
package riverbeat
