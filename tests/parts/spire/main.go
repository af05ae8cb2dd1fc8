// SPIRE's server and agent in one program: `spire server …` and `spire agent …` are `spire-server …` and `spire-agent …`.
package main

import (
	"fmt"
	"os"

	agent "github.com/spiffe/spire/cmd/spire-agent/cli"
	server "github.com/spiffe/spire/cmd/spire-server/cli"
	"github.com/spiffe/spire/pkg/common/entrypoint"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "server":
			os.Args = os.Args[1:]
			os.Exit(entrypoint.NewEntryPoint(new(server.CLI).Run).Main())
		case "agent":
			os.Args = os.Args[1:]
			os.Exit(entrypoint.NewEntryPoint(new(agent.CLI).Run).Main())
		}
	}
	fmt.Fprintln(os.Stderr, "usage: spire server|agent …")
	os.Exit(2)
}
