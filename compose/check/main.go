// check loads compose.yaml as `docker compose config` does, without a container engine: once for each profile, with the
// env file of the profile.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: check FOLDER_OF_COMPOSE_YAML")
		os.Exit(64)
	}
	folder := os.Args[1]
	for _, profile := range []string{"core", "full", "chaos"} {
		variables := ".env"
		if profile == "chaos" {
			variables = "chaos.env"
		}
		services, err := load(folder, profile, filepath.Join(folder, variables))
		if err != nil {
			fmt.Fprintf(os.Stderr, "error: profile %s: %v\n", profile, err)
			os.Exit(1)
		}
		fmt.Printf("%s: %s\n", profile, strings.Join(services, " "))
	}
}

func load(folder, profile, variables string) ([]string, error) {
	options, err := cli.NewProjectOptions(
		[]string{filepath.Join(folder, "compose.yaml")},
		cli.WithWorkingDirectory(folder),
		cli.WithEnvFiles(variables),
		cli.WithDotEnv,
		cli.WithProfiles([]string{profile}),
	)
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	return project.ServiceNames(), nil
}
