// Command riverbeat is the task scheduler: server, worker and tools in one binary.
package main

import "riverbeat/cmd/command"

func main() { command.Main() }
