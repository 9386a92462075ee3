package main

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

// What the metadata server of a machine in Google's cloud gives out.
const ofTheMachine = "ya29.of-the-machine"

func metadata(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata-Flavor") != "Google" {
		http.Error(w, "Missing required header: Metadata-Flavor", http.StatusForbidden)
		return
	}
	w.Header().Set("Metadata-Flavor", "Google")
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": ofTheMachine, "expires_in": 3599, "token_type": "Bearer"})
}

// The one account that may do everything.
type account struct {
	email string
	id    string
	key   *rsa.PublicKey
}

func readAccount(file string) (*account, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var said struct {
		PrivateKey string `json:"private_key"`
		KeyID      string `json:"private_key_id"`
		Email      string `json:"client_email"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(said.PrivateKey))
	if block == nil {
		return nil, errors.New(file + ": no private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, is := parsed.(*rsa.PrivateKey)
	if !is {
		return nil, errors.New(file + ": no RSA key")
	}
	return &account{said.Email, said.KeyID, &private.PublicKey}, nil
}

func (a *account) signed(message string, signature []byte) error {
	sum := sha256.Sum256([]byte(message))
	return rsa.VerifyPKCS1v15(a.key, crypto.SHA256, sum[:], signature)
}

// Status, code and reason of a refusal; 0 if there is none.
func (a *account) refuses(r *http.Request) (int, string, string) {
	if r.URL.Query().Has("X-Goog-Signature") {
		if err := a.url(r); err != nil {
			return http.StatusForbidden, "SignatureDoesNotMatch", err.Error()
		}
		return 0, "", ""
	}
	token, is := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !is {
		return http.StatusForbidden, "AccessDenied", "Anonymous caller does not have storage.objects access"
	}
	if token == ofTheMachine {
		return 0, "", ""
	}
	if err := a.token(token); err != nil {
		return http.StatusUnauthorized, "AuthenticationRequired", err.Error()
	}
	return 0, "", ""
}

// A token that the account signed itself (AIP-4111).
func (a *account) token(token string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("no such token")
	}
	var header struct{ Alg, Kid string }
	var claims struct {
		Iss, Sub, Scope string
		Iat, Exp        int64
	}
	for number, into := range []any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[number])
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, into); err != nil {
			return err
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	if header.Alg != "RS256" || header.Kid != a.id || claims.Iss != a.email || claims.Sub != a.email {
		return errors.New("a token of somebody else")
	}
	now := time.Now().Unix()
	if claims.Iat > now+60 || claims.Exp < now || claims.Exp > claims.Iat+3600 {
		return errors.New("a token of another time")
	}
	allowed := false
	for _, scope := range strings.Fields(claims.Scope) {
		name := strings.TrimPrefix(scope, "https://www.googleapis.com/auth/")
		allowed = allowed || name == "cloud-platform" || name == "devstorage.full_control" || name == "devstorage.read_write"
	}
	if !allowed {
		return errors.New("a token of another scope")
	}
	return a.signed(parts[0]+"."+parts[1], signature)
}

// A signed URL (V4).
func (a *account) url(r *http.Request) error {
	query := r.URL.Query()
	signature, err := hex.DecodeString(query.Get("X-Goog-Signature"))
	if err != nil {
		return err
	}
	at, err := time.Parse("20060102T150405Z", query.Get("X-Goog-Date"))
	if err != nil {
		return err
	}
	holds, err := strconv.Atoi(query.Get("X-Goog-Expires"))
	if err != nil {
		return err
	}
	if now := time.Now(); now.Before(at.Add(-time.Minute)) || now.After(at.Add(time.Duration(holds)*time.Second)) {
		return errors.New("it does not hold any more")
	}
	scope := fmt.Sprintf("%s/auto/storage/goog4_request", at.Format("20060102"))
	if query.Get("X-Goog-Credential") != a.email+"/"+scope || query.Get("X-Goog-Algorithm") != "GOOG4-RSA-SHA256" {
		return errors.New("signed by somebody else")
	}
	names := strings.Split(query.Get("X-Goog-SignedHeaders"), ";")
	var headers strings.Builder
	for _, name := range names {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		headers.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	query.Del("X-Goog-Signature")
	canonical := strings.Join([]string{
		r.Method, r.URL.EscapedPath(), encoded(query), headers.String(), strings.Join(names, ";"), "UNSIGNED-PAYLOAD",
	}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	message := strings.Join([]string{
		"GOOG4-RSA-SHA256", at.Format("20060102T150405Z"), scope, hex.EncodeToString(sum[:]),
	}, "\n")
	return a.signed(message, signature)
}

func encoded(query url.Values) string {
	var pairs []string
	for name, values := range query {
		for _, value := range values {
			escape := func(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }
			pairs = append(pairs, escape(name)+"="+escape(value))
		}
	}
	sort.Strings(pairs)
	return strings.Join(pairs, "&")
}
