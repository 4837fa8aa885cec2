// A backend that calls Pleo's API for one tenant, with tokens that it gets from the broker.
//
//	go run . BROKER TENANT API_URL [CALLS]
//
// BROKER_CA_FILE, BROKER_CLIENT_CERT_FILE and BROKER_CLIENT_KEY_FILE: to a broker with mutual TLS.
// Exit status 0: Pleo answered each call; 1: something else failed; 3: the customer must reconnect
// (of the built program: `go run` itself ends with 1 then).
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	brokerv1 "example.org/pleo-caller/broker/v1"
)

const (
	// A refresh at Pleo takes up to ten seconds; REFRESH_IN_PROGRESS comes before.
	deadline = 10 * time.Second

	reconnect = 3

	// The broker says in `grpc-retry-pushback-ms` when to try again, or never: gRPC obeys it by
	// itself, and the backoffs here only stand in where a connection broke and nobody said anything.
	serviceConfig = `{
		"loadBalancingConfig": [{"round_robin": {}}],
		"methodConfig": [{
			"name": [{"service": "broker.v1.TokenService"}],
			"retryPolicy": {
				"maxAttempts": 4,
				"initialBackoff": "0.2s",
				"maxBackoff": "2s",
				"backoffMultiplier": 2,
				"retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
			}
		}]
	}`
)

// reauthRequired: the grant is dead until the customer consents again.
type reauthRequired struct{ tenant, cause, since string }

func (e reauthRequired) Error() string {
	return fmt.Sprintf("reconnect %s: %s, since %s", e.tenant, e.cause, e.since)
}

// tokens keeps one tenant's token for as long as the broker promises. For one goroutine.
type tokens struct {
	broker     brokerv1.TokenServiceClient
	tenant     string
	kept       *brokerv1.GetAccessTokenResponse
	reuseUntil time.Time
}

func (t *tokens) get(ctx context.Context) (*brokerv1.GetAccessTokenResponse, error) {
	// time.Time compares by the monotonic clock, as reuse_for wants it.
	if time.Now().Before(t.reuseUntil) {
		return t.kept, nil
	}
	return t.ask(ctx, nil)
}

func (t *tokens) ask(
	ctx context.Context, rejected *int64,
) (*brokerv1.GetAccessTokenResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	// Counted from before the call, so that the way back is not taken for lease.
	asked := time.Now()
	answer, err := t.broker.GetAccessToken(ctx, &brokerv1.GetAccessTokenRequest{
		Tenant: t.tenant, RejectedGeneration: rejected,
	})
	if err != nil {
		return nil, explained(err)
	}
	// `degraded`: zero, so no reuse.
	t.kept, t.reuseUntil = answer, asked.Add(answer.GetReuseFor().AsDuration())
	return answer, nil
}

// explained goes by the reason, not by the code or the text: several reasons share a code.
func explained(err error) error {
	for _, detail := range status.Convert(err).Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if ok && info.GetReason() == "REAUTH_REQUIRED" {
			facts := info.GetMetadata()
			return reauthRequired{facts["tenant"], facts["cause"], facts["since"]}
		}
	}
	return err
}

// call returns the status of Pleo's answer. A 401 is reported once, and the call is made again once
// if that brought another token. The same one back means that the token lives: then the 401 is
// Pleo's answer. A 403 is about scopes, and no newer token helps.
func call(ctx context.Context, t *tokens, url string) (int, error) {
	token, err := t.get(ctx)
	if err != nil {
		return 0, err
	}
	answered, err := fetch(ctx, url, token)
	if err != nil || answered != http.StatusUnauthorized {
		return answered, err
	}
	generation := token.GetGeneration()
	newer, err := t.ask(ctx, &generation)
	if err != nil || newer.GetGeneration() <= generation {
		return answered, err
	}
	return fetch(ctx, url, newer)
}

func fetch(
	ctx context.Context, url string, token *brokerv1.GetAccessTokenResponse,
) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", token.GetTokenType()+" "+token.GetAccessToken())
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}

// transport is mutual TLS where the broker's authority is named, and otherwise for loopback only.
func transport() (credentials.TransportCredentials, error) {
	authority := os.Getenv("BROKER_CA_FILE")
	if authority == "" {
		return insecure.NewCredentials(), nil
	}
	trusted, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	own, err := tls.LoadX509KeyPair(
		os.Getenv("BROKER_CLIENT_CERT_FILE"), os.Getenv("BROKER_CLIENT_KEY_FILE"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(trusted) {
		return nil, fmt.Errorf("%s holds no certificate", authority)
	}
	return credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{own}}), nil
}

func run(ctx context.Context, address, tenant, apiURL string, calls int) error {
	transport, err := transport()
	if err != nil {
		return err
	}
	channel, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig))
	if err != nil {
		return err
	}
	defer channel.Close()
	t := &tokens{broker: brokerv1.NewTokenServiceClient(channel), tenant: tenant}
	for range calls {
		answered, err := call(ctx, t, apiURL+"/v1/export-items")
		if err != nil {
			return err
		}
		fmt.Printf("%d with generation %d\n", answered, t.kept.GetGeneration())
		if answered != http.StatusOK {
			return fmt.Errorf("Pleo answered %d", answered)
		}
	}
	return nil
}

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: pleo-caller BROKER TENANT API_URL [CALLS]")
		os.Exit(2)
	}
	calls := 1
	if len(os.Args) > 4 {
		calls, _ = strconv.Atoi(os.Args[4])
	}
	err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3], calls)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.As(err, new(reauthRequired)) {
		os.Exit(reconnect)
	}
	os.Exit(1)
}
